# LibTorch, the CUDA runtime's headers and NCCL as imported targets, made from the `torch` Python wheel and the
# NVIDIA wheels beside it. No CUDA toolkit is needed (find_package(Torch) on a CUDA wheel demands one).
#
#   hesspect::torch       libtorch_cpu, libc10                                   (always)
#   hesspect::torch_cuda  libtorch_cuda, libc10_cuda, libcudart                  (CUDA wheels; HESSPECT_HAVE_CUDA)
#   hesspect::nccl        libnccl                                                (CUDA wheels)
#
# HESSPECT_PYTHON names the interpreter whose environment holds the wheel. Without it: in a build for that environment (`pip install`)
# the one that builds, else .venv/bin/python in the source tree, else python3 on the PATH.
#
# Sets TORCH_VERSION, HESSPECT_RPATH (folders of the libraries), and HESSPECT_PACKAGES, where Python's packages are from the folder of its
# scripts. Where something is missing it defines no target and sets HESSPECT_TORCH_MISSING or HESSPECT_CUDA_MISSING (wheels' names): whoever
# includes this says so. CMake's package of hesspect includes it too.

if(NOT HESSPECT_PYTHON)
  if(SKBUILD AND Python_EXECUTABLE)
    set(HESSPECT_PYTHON "${Python_EXECUTABLE}")  # not in the cache, for the next build may be for another environment
  elseif(EXISTS "${CMAKE_CURRENT_LIST_DIR}/../.venv/bin/python")
    cmake_path(ABSOLUTE_PATH CMAKE_CURRENT_LIST_DIR NORMALIZE OUTPUT_VARIABLE hesspect_python)
    cmake_path(GET hesspect_python PARENT_PATH hesspect_python)
    set(hesspect_python "${hesspect_python}/.venv/bin/python")
  else()
    find_program(HESSPECT_PYTHON_FOUND NAMES python3 python)
    set(hesspect_python "${HESSPECT_PYTHON_FOUND}")
  endif()
  if(NOT HESSPECT_PYTHON)
    set(HESSPECT_PYTHON "${hesspect_python}" CACHE FILEPATH "Python whose environment holds the torch wheel" FORCE)
  endif()
endif()

set(HESSPECT_TORCH_MISSING "")
set(HESSPECT_CUDA_MISSING "")
set(HESSPECT_HAVE_CUDA OFF)
set(TORCH_VERSION "")
execute_process(COMMAND "${HESSPECT_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/torch_wheel.py" OUTPUT_VARIABLE torch_wheel RESULT_VARIABLE torch_wheel_rc
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
foreach(name TORCH VERSION LIB INCLUDE PACKAGES CUDA CUDA_LIB CUDA_INCLUDE NCCL_INCLUDE NCCL_LIB CUDA_MISSING)
  set(torch_${name} "")
  if("\n${torch_wheel}\n" MATCHES "\n${name}=([^\n]*)\n")
    set(torch_${name} "${CMAKE_MATCH_1}")
  endif()
endforeach()
if(NOT torch_wheel_rc EQUAL 0)
  set(HESSPECT_TORCH_MISSING "${HESSPECT_PYTHON} has no torch")
elseif(torch_VERSION VERSION_LESS 2.11)
  set(HESSPECT_TORCH_MISSING "${HESSPECT_PYTHON} has torch ${torch_VERSION}")
elseif(NOT torch_LIB OR NOT torch_INCLUDE)
  set(HESSPECT_TORCH_MISSING "torch in ${torch_TORCH} has no libraries or no headers beside it")
endif()
if(HESSPECT_TORCH_MISSING)
  return()
endif()
set(TORCH_VERSION "${torch_VERSION}")
set(HESSPECT_TORCH_VERSION "${torch_VERSION}" CACHE INTERNAL "Of the torch that this tree is built against")
set(HESSPECT_PACKAGES "${torch_PACKAGES}")
set(HESSPECT_PACKAGES_OF_TREE "${torch_PACKAGES}" CACHE INTERNAL "Where its programs look for the environment's packages")
message(STATUS "LibTorch ${torch_VERSION} from the torch wheel")

add_library(hesspect::torch INTERFACE IMPORTED GLOBAL)
target_include_directories(hesspect::torch INTERFACE "${torch_INCLUDE}" "${torch_INCLUDE}/torch/csrc/api/include")
# at::parallel_for runs its threads only where the caller is compiled with OpenMP; LibTorch brings the runtime library. The
# fuzz targets need no threads, and clang would want its own runtime library.
if(NOT HESSPECT_BUILD_FUZZ)
  target_compile_options(hesspect::torch INTERFACE -fopenmp)
  target_link_options(hesspect::torch INTERFACE -fopenmp)
endif()
target_link_directories(hesspect::torch INTERFACE "${torch_LIB}")
# Before LibTorch, whose libraries export parts of the C++ library that they were built with; in libtorch.so 2.11 that is a
# std::filesystem::remove_all that calls a null pointer.
target_link_options(hesspect::torch INTERFACE "SHELL:-Wl,--push-state,--no-as-needed -lstdc++ -Wl,--pop-state")
target_link_libraries(hesspect::torch INTERFACE "${torch_LIB}/libtorch_cpu.so" "${torch_LIB}/libc10.so")
# libtorch.so is left out: it holds nothing, and takes the libraries for GPUs in with it.
set(HESSPECT_RPATH "${torch_LIB}")

# The NVIDIA wheels: CUDA 13 puts headers and libraries in nvidia/cu13; NCCL has a folder of its own.
if(DEFINED HESSPECT_USE_CUDA AND NOT HESSPECT_USE_CUDA)
  message(STATUS "HESSPECT_USE_CUDA is off: building for CPU only")
elseif(torch_CUDA STREQUAL "13" AND torch_CUDA_MISSING)
  set(HESSPECT_CUDA_MISSING "${torch_CUDA_MISSING}")
elseif(torch_CUDA STREQUAL "13")
  set(HESSPECT_HAVE_CUDA ON)
  set(HESSPECT_CUDA_INCLUDE "${torch_CUDA_INCLUDE}")
  add_library(hesspect::torch_cuda INTERFACE IMPORTED GLOBAL)
  target_include_directories(hesspect::torch_cuda INTERFACE ${torch_CUDA_INCLUDE})
  target_link_libraries(hesspect::torch_cuda INTERFACE hesspect::torch
    "-Wl,--no-as-needed,${torch_LIB}/libtorch_cuda.so,--as-needed" "${torch_LIB}/libc10_cuda.so" "${torch_CUDA_LIB}/libcudart.so.13")
  add_library(hesspect::c10_cuda INTERFACE IMPORTED GLOBAL)  # for the tests' simulated GPU
  target_include_directories(hesspect::c10_cuda INTERFACE ${torch_CUDA_INCLUDE})
  target_link_libraries(hesspect::c10_cuda INTERFACE "${torch_LIB}/libc10_cuda.so")
  add_library(hesspect::nccl INTERFACE IMPORTED GLOBAL)
  target_include_directories(hesspect::nccl INTERFACE "${torch_NCCL_INCLUDE}")
  target_link_libraries(hesspect::nccl INTERFACE "${torch_NCCL_LIB}/libnccl.so.2")
  list(APPEND HESSPECT_RPATH "${torch_CUDA_LIB}" "${torch_NCCL_LIB}")
elseif(torch_CUDA)
  message(STATUS "The torch wheel's CUDA is not CUDA 13 of NVIDIA's wheels: building for CPU only")
else()
  message(STATUS "The torch wheel has no CUDA: building for CPU only")
endif()
