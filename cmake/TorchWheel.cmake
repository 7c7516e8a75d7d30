# LibTorch, the CUDA runtime's headers and NCCL as imported targets, made from the `torch` Python wheel and the
# NVIDIA wheels beside it. No CUDA toolkit is needed (find_package(Torch) on a CUDA wheel demands one).
#
#   hesspect::torch       libtorch_cpu, libc10                                   (always)
#   hesspect::torch_cuda  libtorch_cuda, libc10_cuda, libcudart                  (CUDA wheels; HESSPECT_HAVE_CUDA)
#   hesspect::nccl        libnccl                                                (CUDA wheels)
#
# HESSPECT_PYTHON names the interpreter whose environment holds the wheel; default: .venv/bin/python in the source tree.

if(NOT HESSPECT_PYTHON)
  if(EXISTS "${CMAKE_SOURCE_DIR}/.venv/bin/python")
    set(HESSPECT_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python")
  else()
    find_program(HESSPECT_PYTHON_FOUND NAMES python3 python REQUIRED)
    set(HESSPECT_PYTHON "${HESSPECT_PYTHON_FOUND}")
  endif()
endif()
set(HESSPECT_PYTHON "${HESSPECT_PYTHON}" CACHE FILEPATH "Python whose environment holds the torch wheel")

execute_process(
  COMMAND "${HESSPECT_PYTHON}" -c
    "import importlib.util as u, importlib.metadata as m, os; print(os.path.dirname(u.find_spec('torch').origin)); print(m.version('torch'))"
  OUTPUT_VARIABLE torch_wheel RESULT_VARIABLE torch_wheel_rc OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT torch_wheel_rc EQUAL 0)
  message(FATAL_ERROR "${HESSPECT_PYTHON} has no 'torch' wheel. Run launch/setup, or pass -DHESSPECT_PYTHON=<python with torch>.")
endif()
string(REPLACE "\n" ";" torch_wheel "${torch_wheel}")
list(GET torch_wheel 0 TORCH_WHEEL_DIR)
list(GET torch_wheel 1 TORCH_WHEEL_VERSION)
get_filename_component(SITE_PACKAGES_DIR "${TORCH_WHEEL_DIR}" DIRECTORY)
message(STATUS "LibTorch ${TORCH_WHEEL_VERSION} from the torch wheel")

add_library(hesspect_torch INTERFACE)
add_library(hesspect::torch ALIAS hesspect_torch)
target_include_directories(hesspect_torch SYSTEM INTERFACE
  "${TORCH_WHEEL_DIR}/include" "${TORCH_WHEEL_DIR}/include/torch/csrc/api/include")
# at::parallel_for runs its threads only where the caller is compiled with OpenMP; LibTorch brings the runtime library. The
# fuzz targets need no threads, and clang would want its own runtime library.
if(NOT HESSPECT_BUILD_FUZZ)
  target_compile_options(hesspect_torch INTERFACE -fopenmp)
  target_link_options(hesspect_torch INTERFACE -fopenmp)
endif()
target_link_directories(hesspect_torch INTERFACE "${TORCH_WHEEL_DIR}/lib")
# Before LibTorch, whose libraries export parts of the C++ library that they were built with; in libtorch.so 2.11 that is a
# std::filesystem::remove_all that calls a null pointer.
target_link_options(hesspect_torch INTERFACE "SHELL:-Wl,--push-state,--no-as-needed -lstdc++ -Wl,--pop-state")
target_link_libraries(hesspect_torch INTERFACE
  "${TORCH_WHEEL_DIR}/lib/libtorch_cpu.so" "${TORCH_WHEEL_DIR}/lib/libc10.so")
# libtorch.so is left out: it holds nothing, and takes the libraries for GPUs in with it.
set(HESSPECT_RPATH "${TORCH_WHEEL_DIR}/lib")

# Wheels for x86 hold MKL and export its products of batches, which src/tangent/strided.cpp calls without LibTorch between.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_LIBRARIES "${TORCH_WHEEL_DIR}/lib/libtorch_cpu.so" "${TORCH_WHEEL_DIR}/lib/libc10.so")
check_cxx_source_compiles(
  "extern \"C\" { void cblas_sgemm_batch(); void cblas_dgemm_batch(); void sgemm_(); void dgemm_(); }
   int main(int argc, char**) { if (argc > 9) cblas_sgemm_batch(), cblas_dgemm_batch(), sgemm_(), dgemm_(); }"
  HESSPECT_HAVE_GEMM_BATCH)
unset(CMAKE_REQUIRED_LIBRARIES)

# The NVIDIA wheels: CUDA 13 puts headers and libraries in nvidia/cu13; NCCL has a folder of its own.
set(CUDA_WHEEL_DIR "${SITE_PACKAGES_DIR}/nvidia/cu13")
set(NCCL_WHEEL_DIR "${SITE_PACKAGES_DIR}/nvidia/nccl")
if(EXISTS "${TORCH_WHEEL_DIR}/lib/libtorch_cuda.so" AND EXISTS "${CUDA_WHEEL_DIR}/include/cuda_runtime_api.h"
   AND EXISTS "${NCCL_WHEEL_DIR}/include/nccl.h")
  set(HESSPECT_HAVE_CUDA ON)
  add_library(hesspect_torch_cuda INTERFACE)
  add_library(hesspect::torch_cuda ALIAS hesspect_torch_cuda)
  target_include_directories(hesspect_torch_cuda SYSTEM INTERFACE "${CUDA_WHEEL_DIR}/include")
  target_link_libraries(hesspect_torch_cuda INTERFACE hesspect_torch
    "-Wl,--no-as-needed,${TORCH_WHEEL_DIR}/lib/libtorch_cuda.so,--as-needed" "${TORCH_WHEEL_DIR}/lib/libc10_cuda.so"
    "${CUDA_WHEEL_DIR}/lib/libcudart.so.13")
  add_library(hesspect_nccl INTERFACE)
  add_library(hesspect::nccl ALIAS hesspect_nccl)
  target_include_directories(hesspect_nccl SYSTEM INTERFACE "${NCCL_WHEEL_DIR}/include")
  target_link_libraries(hesspect_nccl INTERFACE "${NCCL_WHEEL_DIR}/lib/libnccl.so.2")
  list(APPEND HESSPECT_RPATH "${CUDA_WHEEL_DIR}/lib" "${NCCL_WHEEL_DIR}/lib")
else()
  set(HESSPECT_HAVE_CUDA OFF)
  message(STATUS "The torch wheel has no CUDA or NCCL beside it: building for CPU only")
endif()
