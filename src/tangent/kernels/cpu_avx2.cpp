// The kernels for AVX2 and FMA.
#define HESSPECT_ISA avx2
#include "cpu_kernels.inc"
