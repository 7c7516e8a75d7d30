// The kernels for AVX-512 (F, DQ, BW, VL).
#define HESSPECT_ISA avx512
#include "cpu_kernels.inc"
