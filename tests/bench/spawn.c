/* Start a program again and again, or only fork, and print the median duration in us.
 *
 *   spawn COUNT [PROGRAM ARGUMENT...] */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int by_size(const void *a, const void *b)
{
    const double *left = a, *right = b;
    return (*left > *right) - (*left < *right);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

int main(int count, char **arguments)
{
    int times = count > 1 ? atoi(arguments[1]) : 0;
    double *took = times > 0 ? malloc((size_t)times * sizeof(*took)) : NULL;
    if (!took)
        return 2;
    for (int i = 0; i < times; i++) {
        double begin = now();
        pid_t pid = fork();
        if (pid < 0)
            return 1;
        if (pid == 0) {
            if (count > 2)
                execv(arguments[2], arguments + 2);
            _exit(count > 2);
        }
        if (waitpid(pid, NULL, 0) < 0)
            return 1;
        took[i] = now() - begin;
    }
    qsort(took, (size_t)times, sizeof(*took), by_size);
    printf("%.2f\n", took[times / 2]);
    return 0;
}
