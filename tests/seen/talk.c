/* Send a datagram to each ADDRESS PORT, each from a socket of its own; then the next time for each line of input. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int talk(const char *address, const char *port)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM}, *to;
    if (getaddrinfo(address, port, &hints, &to))
        return 1;
    int fd = socket(to->ai_family, SOCK_DGRAM, 0);
    int failed = fd < 0 || sendto(fd, "x", 1, 0, to->ai_addr, to->ai_addrlen) != 1;
    freeaddrinfo(to);
    close(fd);
    return failed;
}

int main(int count, char **arguments)
{
    char line[64];
    do {
        for (int i = 1; i + 1 < count; i += 2)
            if (talk(arguments[i], arguments[i + 1]))
                return 1;
        puts("sent");
        fflush(stdout);
    } while (fgets(line, sizeof(line), stdin));
    return 0;
}
