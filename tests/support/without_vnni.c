/* Hide AVX-512 and VNNI from one process, so that a processor which has them takes the paths of one which has not.
 *
 * Linux lets a process ask that its CPUID instructions trap (arch_prctl ARCH_SET_CPUID, where the processor can); the
 * handler runs the instruction and takes out the bits. Load it with LD_PRELOAD. Ends the process with 77 where that
 * cannot be done. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <ucontext.h>

#define SET_CPUID 0x1012 /* ARCH_SET_CPUID: 0 makes CPUID trap, 1 lets it run */

/* Leaf 7: F DQ IFMA PF ER CD BW VL; VBMI VBMI2 VNNI BITALG VPOPCNTDQ; 4VNNIW 4FMAPS VP2INTERSECT AMX and FP16.
 * Leaf 7.1: AVX-VNNI, AVX512-BF16; AVX-VNNI-INT8. */
static const uint32_t HIDDEN_EBX = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
static const uint32_t HIDDEN_ECX = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const uint32_t HIDDEN_EDX = 1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25;

static long trap(int off) { return syscall(SYS_arch_prctl, SET_CPUID, off); }

static void answer(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)registers[REG_RIP];
  uint32_t a = registers[REG_RAX], c = registers[REG_RCX], b, d, leaf = a, part = c;
  (void)info;
  if (at[0] != 0x0f || at[1] != 0xa2) { /* a fault that is no CPUID stays one */
    signal(number, SIG_DFL);
    return;
  }
  trap(1);
  __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  trap(0);
  if (leaf == 7 && part == 0) b &= ~HIDDEN_EBX, c &= ~HIDDEN_ECX, d &= ~HIDDEN_EDX;
  if (leaf == 7 && part == 1) a &= ~(1u << 4 | 1u << 5), d &= ~(1u << 4);
  registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, 0);
  if (trap(0)) _exit(77);
}
#else
__attribute__((constructor)) static void begin(void) { _exit(77); }
#endif
