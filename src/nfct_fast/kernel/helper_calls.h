/* System calls for a helper process (helper.h). It shares the program's memory and must not call libc, since errno, the
 * stack protector and lazy binding use data of the thread that started it.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_HELPER_CALLS_H
#define NFCT_FAST_HELPER_CALLS_H

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Attributes of every function that runs in the helper. */
#if defined(__has_attribute)
#if __has_attribute(no_stack_protector)
#define HELPER_CODE static __attribute__((no_stack_protector, unused))
#endif
#endif
#ifndef HELPER_CODE
#define HELPER_CODE static __attribute__((optimize("no-stack-protector"), unused)) /* gcc before 11 */
#endif

/* Make a system call. Return its result, or -errno. */
HELPER_CODE inline long helper_raw(long number, long a, long b, long c, long d);

/* Start a child with exit signal 0 that calls run(argument), which must not return, on a stack that ends at `top`.
 * Return its pid, or -errno. *pidfd: see CLONE_PIDFD in clone(2). */
static inline long helper_raw_child(unsigned long flags, char *top, int *pidfd, void (*run)(void *), void *argument);

#if defined(__x86_64__) && defined(__LP64__) && !defined(HELPER_COPIES)
#define HELPER_SHARES 1

HELPER_CODE inline long helper_raw(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static inline long helper_raw_child(unsigned long flags, char *top, int *pidfd, void (*run)(void *), void *argument)
{
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    void **stack = (void **)top - 2;
    long result;
    stack[0] = (void *)run;
    stack[1] = argument;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "pop %%rax\n\t"
                     "pop %%rdi\n\t"
                     "call *%%rax\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone), "D"(flags), "S"(stack), "d"(pidfd), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined(__aarch64__) && defined(__LP64__) && !defined(HELPER_COPIES)
#define HELPER_SHARES 1

HELPER_CODE inline long helper_raw(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory", "cc");
    return x0;
}

static inline long helper_raw_child(unsigned long flags, char *top, int *pidfd, void (*run)(void *), void *argument)
{
    void **stack = (void **)top - 2;
    register long x8 __asm__("x8") = SYS_clone;
    register long x0 __asm__("x0") = (long)flags;
    register long x1 __asm__("x1") = (long)stack;
    register long x2 __asm__("x2") = (long)pidfd;
    register long x3 __asm__("x3") = 0;
    register long x4 __asm__("x4") = 0;
    stack[0] = (void *)run;
    stack[1] = argument;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "ldp x1, x0, [sp], #16\n\t"
                     "blr x1\n\t"
                     "brk #0\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
                     : "memory", "cc");
    return x0;
}

#else
/* On other machines (and with HELPER_COPIES, for a test) the child has a copy of the memory, with its own errno and
 * whatever else libc needs. */
#define HELPER_SHARES 0

HELPER_CODE inline long helper_raw(long number, long a, long b, long c, long d)
{
    long result = syscall(number, a, b, c, d);
    return result < 0 ? -errno : result;
}

static inline long helper_raw_child(unsigned long flags, char *top, int *pidfd, void (*run)(void *), void *argument)
{
    (void)top;
#if defined(__s390__)
    long result = syscall(SYS_clone, 0L, flags, pidfd, 0L, 0L);
#else
    long result = syscall(SYS_clone, flags, 0L, pidfd, 0L, 0L);
#endif
    if (result == 0)
        run(argument);
    return result < 0 ? -errno : result;
}
#endif

#endif
