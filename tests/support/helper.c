/* The helper process alone, in a C program whose command line it reads. Prints the result. With -DHELPER_COPIES it
 * works as on an architecture for which helper_calls.h has no system calls. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <nfct_fast/processes/cmdline_helper.h>

int main(void)
{
    struct helper helper;
    struct cmdline_request ask = {.limit = 4096};
    struct cmdline_reply answer;
    static char buf[4096];
    int directory = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    helper_init(&helper);
    for (int round = 0; round < 3; round++) {
        struct timespec now;
        ssize_t got;
        int rc = cmdline_start(&helper);
        if (rc < 0) {
            printf("start: %s\n", strerror(-rc));
            return 1;
        }
        for (ask.number = 1; ask.number <= 3; ask.number++) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            rc = cmdline_post(&helper, &ask, directory);
            errno = 12345;
            do
                got = cmdline_receive(&helper, &answer, buf, sizeof(buf), (int64_t)(now.tv_sec + 10) * 1000000000);
            while (got > 0 && answer.number != ask.number);
            if (rc < 0 || got < 0) {
                printf("no answer: %d %zd\n", rc, got);
                return 1;
            }
            printf("%zd %s %d %d %d\n", got, buf, (int)answer.full_size, (int)answer.last, (int)answer.error);
        }
        helper_kill(&helper, 0);
    }
    helper_close(&helper);
    printf("shares %d, ending %u, children %d\n", HELPER_SHARES, helper.ending_count,
           waitpid(-1, NULL, WNOHANG | __WALL));
    return 0;
}
