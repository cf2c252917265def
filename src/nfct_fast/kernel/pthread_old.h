/* pthread.h, with the symbol versions that mutex attributes had before glibc 2.34 moved libpthread into libc. With the
 * versions of the machine that builds, these three functions would keep a wheel from older systems. */
#ifndef NFCT_FAST_PTHREAD_OLD_H
#define NFCT_FAST_PTHREAD_OLD_H
#include <pthread.h>

#if defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if defined(__x86_64__) && defined(__LP64__)
__asm__(".symver pthread_mutexattr_init, pthread_mutexattr_init@GLIBC_2.2.5\n"
        ".symver pthread_mutexattr_setprotocol, pthread_mutexattr_setprotocol@GLIBC_2.4\n"
        ".symver pthread_mutexattr_destroy, pthread_mutexattr_destroy@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver pthread_mutexattr_init, pthread_mutexattr_init@GLIBC_2.17\n"
        ".symver pthread_mutexattr_setprotocol, pthread_mutexattr_setprotocol@GLIBC_2.17\n"
        ".symver pthread_mutexattr_destroy, pthread_mutexattr_destroy@GLIBC_2.17");
#endif
#endif

#endif
