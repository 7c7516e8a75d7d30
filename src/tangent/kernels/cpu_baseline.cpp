// The kernels for any machine of the architecture.
#define HESSPECT_ISA baseline
#include "cpu_kernels.inc"
