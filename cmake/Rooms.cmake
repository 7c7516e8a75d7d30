# One static library per room of the design, with warnings and include paths set once.
#
#   hesspect_room(NAME SOURCES a.cpp b.cpp [ROOMS core comm] [LINKS Boost::program_options] [TORCH] [COLD] [PRIVATE])
#
# TORCH adds LibTorch and a precompiled header shared by all rooms that ask for it, and by the tests of these rooms.
# PRIVATE: the program's own, no library for others.
# COLD: no loops over many numbers; a release build optimises such a room less, which takes a third of the compiler's time off.

add_library(hesspect_warnings INTERFACE)
target_compile_options(hesspect_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>  # g++ 12 warns falsely inside std::string (GCC bug 105651)
  $<$<BOOL:${HESSPECT_WERROR}>:-Werror>)

function(hesspect_room name)
  cmake_parse_arguments(R "TORCH;COLD;PRIVATE" "" "SOURCES;ROOMS;LINKS" ${ARGN})
  add_library(hesspect_${name} STATIC ${R_SOURCES})
  add_library(hesspect::${name} ALIAS hesspect_${name})
  target_include_directories(hesspect_${name} PUBLIC "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>" "$<INSTALL_INTERFACE:include>")
  target_compile_features(hesspect_${name} INTERFACE cxx_std_20)
  target_link_libraries(hesspect_${name} PRIVATE "$<BUILD_INTERFACE:hesspect_warnings>")
  foreach(room IN LISTS R_ROOMS)
    target_link_libraries(hesspect_${name} PUBLIC hesspect_${room})
  endforeach()
  if(R_LINKS)
    target_link_libraries(hesspect_${name} PUBLIC ${R_LINKS})
  endif()
  if(R_COLD)
    target_compile_options(hesspect_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  endif()
  if(R_TORCH)
    target_link_libraries(hesspect_${name} PUBLIC hesspect::torch)
    target_precompile_headers(hesspect_${name} REUSE_FROM hesspect_torch_pch)
    set_target_properties(hesspect_${name} PROPERTIES HESSPECT_TORCH ON)
  endif()
  if(NOT R_PRIVATE)
    hesspect_install_room(${name})
  endif()
endfunction()

# The precompiled header's own target: the LibTorch headers that most torch-using files share.
function(hesspect_torch_pch)
  file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/torch_pch.cpp" CONTENT "// Holds the precompiled header of the rooms that use LibTorch.\n")
  add_library(hesspect_torch_pch STATIC "${CMAKE_BINARY_DIR}/torch_pch.cpp")
  target_include_directories(hesspect_torch_pch PUBLIC "${CMAKE_SOURCE_DIR}/include")
  target_link_libraries(hesspect_torch_pch PRIVATE hesspect_warnings PUBLIC hesspect::torch)
  set_target_properties(hesspect_torch_pch PROPERTIES UNITY_BUILD OFF)
  target_precompile_headers(hesspect_torch_pch PRIVATE
    <ATen/ATen.h> <torch/csrc/autograd/autograd.h> <torch/csrc/autograd/variable.h>
    <string> <vector> <memory> <map> <unordered_map> <functional> <optional> <stdexcept> <algorithm>)
endfunction()
