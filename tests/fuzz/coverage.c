/* Which edges of the instrumented code ran: linked into the package by tests/sanitize, asked by tests/fuzz. */
#include <stdint.h>
#include <string.h>

enum { SIZE = 1 << 16 };

static uint8_t ran[SIZE], known[SIZE];
static __thread uintptr_t before;

void __sanitizer_cov_trace_pc(void) __attribute__((no_sanitize("address", "undefined", "thread")));
void __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0) * 0x9e3779b97f4a7c15u >> 40;
    ran[(here ^ before) & (SIZE - 1)] = 1;
    before = here >> 1;
}

void nfct_fuzz_begin(void)
{
    memset(ran, 0, SIZE);
    before = 0;
}

void nfct_fuzz_forget(void) { memset(known, 0, SIZE); }

/* How many edges ran since then that had not before; from now on they are known. */
int nfct_fuzz_new(void)
{
    int fresh = 0;
    for (int i = 0; i < SIZE; i++) {
        fresh += ran[i] & !known[i];
        known[i] |= ran[i];
    }
    return fresh;
}
