# add_hesspect_test(name SOURCES a_test.cpp [ROOMS krylov] [LINKS lib] [TIMEOUT s] [FIXTURES] [LABELS l])
#   one ctest entry, run by one process without mpirun.
# add_mpi_test(name RANKS 1 2 4 SOURCES a_test.cpp [ROOMS comm] ...)
#   run by mpirun at each rank count (entries name.np1, name.np2, …).
# FIXTURES: the test reads the models under HESSPECT_FIXTURES, which PyTorch writes first.
#
# The entries of a folder of tests share one GoogleTest program, FOLDER_tests, those under mpirun FOLDER_mpi_tests: it is
# compiled and linked once, and each entry runs the tests of its own files (`krylov_tests lanczos_test`).
#
# Of the entries, those begin first that have the largest COST: the ones with several ranks, which take two of ctest's places,
# beside which the longest of one place run; then these by about their seconds. What is left for the end is short, so that no
# core waits for another. (ctest's own record of what entries took is not there on a fresh machine.)
set(HESSPECT_COST_OF_RANKS 1000)

set(HESSPECT_MPIRUN ${MPIEXEC_EXECUTABLE} --allow-run-as-root --oversubscribe --bind-to none --quiet)

# Adds an entry's sources and rooms to the folder's program; makes it with the first one.
function(_hesspect_test_program program main)
  cmake_parse_arguments(T "FIXTURES" "TIMEOUT" "SOURCES;ROOMS;LINKS;RANKS;LABELS" ${ARGN})
  if(NOT TARGET ${program})
    add_executable(${program} "${CMAKE_SOURCE_DIR}/tests/support/${main}")
    target_link_libraries(${program} PRIVATE hesspect_warnings GTest::gtest)
    target_include_directories(${program} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
    # Code as the rooms' has the use of their precompiled header.
    set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests"
      POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${program} PRIVATE -fPIC)
  endif()
  target_sources(${program} PRIVATE ${T_SOURCES})
  target_link_libraries(${program} PRIVATE ${T_LINKS})
  foreach(room IN LISTS T_ROOMS)
    target_link_libraries(${program} PRIVATE hesspect_${room})
    get_target_property(has_torch hesspect_${room} HESSPECT_TORCH)
    get_target_property(has_header ${program} PRECOMPILE_HEADERS_REUSE_FROM)
    if(has_torch AND NOT has_header)
      target_precompile_headers(${program} REUSE_FROM hesspect_torch_pch)
    endif()
  endforeach()
endfunction()

# The names that the program takes for an entry's files: theirs, without `.cpp`.
function(_hesspect_test_files out)
  cmake_parse_arguments(T "FIXTURES" "TIMEOUT" "SOURCES;ROOMS;LINKS;RANKS;LABELS" ${ARGN})
  list(TRANSFORM T_SOURCES REPLACE "\\.cpp$" "")
  set(${out} ${T_SOURCES} PARENT_SCOPE)
endfunction()

function(_hesspect_test_properties entry)
  cmake_parse_arguments(T "FIXTURES" "TIMEOUT" "SOURCES;ROOMS;LINKS;RANKS;LABELS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  set_tests_properties(${entry} PROPERTIES TIMEOUT ${T_TIMEOUT}
    ENVIRONMENT "OMP_NUM_THREADS=1;HESSPECT_FIXTURES=${CMAKE_BINARY_DIR}/fixtures;HESSPECT_BIN=${CMAKE_BINARY_DIR}/bin/hesspect;HESSPECT_SOURCE=${CMAKE_SOURCE_DIR};HESSPECT_PYTHON=${HESSPECT_PYTHON};OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_rmaps_base_oversubscribe=1;OMPI_MCA_hwloc_base_binding_policy=none;OMPI_MCA_mpi_yield_when_idle=1")
  if(T_FIXTURES)
    set_tests_properties(${entry} PROPERTIES FIXTURES_REQUIRED torch_models)
  endif()
  if(T_LABELS)
    set_tests_properties(${entry} PROPERTIES LABELS "${T_LABELS}")
  endif()
endfunction()

function(add_hesspect_test name)
  get_filename_component(folder "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
  _hesspect_test_program(${folder}_tests main.cpp ${ARGN})
  _hesspect_test_files(files ${ARGN})
  add_test(NAME ${name} COMMAND ${folder}_tests ${files})
  _hesspect_test_properties(${name} ${ARGN})
endfunction()

function(add_mpi_test name)
  cmake_parse_arguments(T "FIXTURES" "TIMEOUT" "SOURCES;ROOMS;LINKS;RANKS;LABELS" ${ARGN})
  get_filename_component(folder "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
  _hesspect_test_program(${folder}_mpi_tests mpi_main.cpp LINKS MPI::MPI_CXX ${ARGN})
  _hesspect_test_files(files ${ARGN})
  foreach(ranks IN LISTS T_RANKS)
    add_test(NAME ${name}.np${ranks} COMMAND ${HESSPECT_MPIRUN} -n ${ranks} $<TARGET_FILE:${folder}_mpi_tests> ${files})
    _hesspect_test_properties(${name}.np${ranks} ${ARGN})
    if(ranks GREATER 1)
      set_tests_properties(${name}.np${ranks} PROPERTIES PROCESSORS 2 COST ${HESSPECT_COST_OF_RANKS})
    endif()
  endforeach()
endfunction()
