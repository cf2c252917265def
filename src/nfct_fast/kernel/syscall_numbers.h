/* System calls newer than the headers of older C libraries. Since 5.1 a new call has the same number on every
 * architecture.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_SYSCALL_NUMBERS_H
#define NFCT_FAST_SYSCALL_NUMBERS_H

#include <sys/syscall.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424 /* 5.1 */
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430 /* 5.2, as the next two */
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_close_range
#define SYS_close_range 436 /* 5.9 */
#endif

#endif
