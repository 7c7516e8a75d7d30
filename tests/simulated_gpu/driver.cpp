// libcuda.so.1, of which the program asks only whether it is there. It brings the simulated libraries in under the
// names of the true ones, and the dynamic linker takes none twice.
extern "C" int simulated_driver() { return 1; }
