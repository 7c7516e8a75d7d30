# What is installed, and where. Components: `program` (all that a wheel has beside the Python package), `python` (that package),
# `development` (headers, rooms, CMake's package), `module` (a modulefile).
#
#   PREFIX/bin/hesspect, hesspect-try-hdf5
#   PREFIX/lib/hesspect/libhesspect_gpu.so, libhesspect_wait.so, libhesspect_ROOM.a
#   PREFIX/share/man/man1/hesspect.1, and completions where bash, zsh and fish look for them
#   PREFIX/include/hesspect/ROOM/*.h
#   PREFIX/lib/cmake/hesspect/hesspectConfig.cmake
#   PREFIX/share/hesspect/python/hesspect
#   PREFIX/share/hesspect/slurm, mpirun.sh: what `hesspect submit --slurm` hands to sbatch
#   PREFIX/share/hesspect/modulefiles/hesspect/VERSION
#
# In a wheel scikit-build-core's folders for scripts and data take PREFIX/bin's and PREFIX's place; installed, they are the same.

set(HESSPECT_INSTALL_BIN bin)
set(HESSPECT_INSTALL_LIB lib/hesspect)
set(HESSPECT_INSTALL_CMAKE lib/cmake/hesspect)
set(HESSPECT_INSTALL_SHARE share/hesspect)
if(SKBUILD)
  set(HESSPECT_INSTALL_BIN "${SKBUILD_SCRIPTS_DIR}")
  set(HESSPECT_INSTALL_LIB "${SKBUILD_DATA_DIR}/lib/hesspect")
endif()

# After TorchWheel: the folders in which installed programs look for libraries. LibTorch is first looked for where the packages of an environment
# are whose folder of scripts the program lies in, then where it was built with.
macro(hesspect_install_folders)
  cmake_path(SET hesspect_packages NORMALIZE "bin/${HESSPECT_PACKAGES}")  # from the prefix
  set(HESSPECT_PROGRAM_RPATH "$ORIGIN/../lib/hesspect;$ORIGIN/../${hesspect_packages}/torch/lib;${HESSPECT_RPATH}")
  set(HESSPECT_LIBRARY_RPATH "$ORIGIN/../../${hesspect_packages}/torch/lib;$ORIGIN/../../${hesspect_packages}/nvidia/cu13/lib"
    "$ORIGIN/../../${hesspect_packages}/nvidia/nccl/lib" ${HESSPECT_RPATH})
endmacro()

# hesspect_install_program(TARGET): with the libraries' folders, also those of MPI, HDF5 and others that lie outside the system's.
function(hesspect_install_program target)
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "${HESSPECT_PROGRAM_RPATH}" INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS ${target} RUNTIME DESTINATION "${HESSPECT_INSTALL_BIN}" COMPONENT program)
endfunction()

# hesspect_install_library(TARGET): one that programs load.
function(hesspect_install_library target)
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "${HESSPECT_LIBRARY_RPATH}" INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS ${target} LIBRARY DESTINATION "${HESSPECT_INSTALL_LIB}" COMPONENT program)
endfunction()

# hesspect_install_room(NAME): as hesspect::NAME of CMake's package.
function(hesspect_install_room name)
  if(SKBUILD)
    return()
  endif()
  set_target_properties(hesspect_${name} PROPERTIES EXPORT_NAME ${name})
  install(TARGETS hesspect_${name} EXPORT hesspectTargets ARCHIVE DESTINATION ${HESSPECT_INSTALL_LIB} COMPONENT development)
endfunction()

function(hesspect_install_rest)
  if(SKBUILD)
    return()
  endif()
  install(DIRECTORY "${CMAKE_SOURCE_DIR}/include/hesspect" DESTINATION include COMPONENT development)
  install(EXPORT hesspectTargets NAMESPACE hesspect:: DESTINATION ${HESSPECT_INSTALL_CMAKE} COMPONENT development)
  include(CMakePackageConfigHelpers)
  configure_package_config_file("${CMAKE_SOURCE_DIR}/cmake/hesspectConfig.cmake.in" "${CMAKE_BINARY_DIR}/hesspectConfig.cmake"
    INSTALL_DESTINATION ${HESSPECT_INSTALL_CMAKE})
  write_basic_package_version_file("${CMAKE_BINARY_DIR}/hesspectConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
  install(FILES "${CMAKE_BINARY_DIR}/hesspectConfig.cmake" "${CMAKE_BINARY_DIR}/hesspectConfigVersion.cmake" "${CMAKE_SOURCE_DIR}/cmake/TorchWheel.cmake"
    "${CMAKE_SOURCE_DIR}/cmake/torch_wheel.py" DESTINATION ${HESSPECT_INSTALL_CMAKE} COMPONENT development)
  install(DIRECTORY "${CMAKE_SOURCE_DIR}/python/hesspect" DESTINATION ${HESSPECT_INSTALL_SHARE}/python COMPONENT python PATTERN __pycache__ EXCLUDE)
  install(PROGRAMS "${CMAKE_SOURCE_DIR}/launch/mpirun.sh" DESTINATION ${HESSPECT_INSTALL_SHARE} COMPONENT program)
  install(DIRECTORY "${CMAKE_SOURCE_DIR}/launch/slurm" DESTINATION ${HESSPECT_INSTALL_SHARE} COMPONENT program)
  # The program writes its manual page and completions itself.
  install(CODE "
    foreach(page \"man:man/man1/hesspect.1\" \"completion bash:bash-completion/completions/hesspect\"
        \"completion zsh:zsh/site-functions/_hesspect\" \"completion fish:fish/vendor_completions.d/hesspect.fish\")
      string(REPLACE \":\" \";\" page \"\${page}\")
      list(GET page 0 command)
      list(GET page 1 file)
      set(file \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/share/\${file}\")
      separate_arguments(command)
      execute_process(COMMAND \"$<TARGET_FILE:hesspect>\" \${command} OUTPUT_VARIABLE text RESULT_VARIABLE code)
      if(code EQUAL 0)
        file(WRITE \"\${file}\" \"\${text}\")
        message(STATUS \"Installing: \${file}\")
      else()
        message(WARNING \"Not installed, for the program can't be run here: \${file}\")
      endif()
    endforeach()"
    COMPONENT program)
  # The prefix stands in it, and is known when it is installed.
  install(CODE "
    set(HESSPECT_MODULE_PREFIX \"\${CMAKE_INSTALL_PREFIX}\")
    set(HESSPECT_MODULE_VERSION ${PROJECT_VERSION})
    configure_file(\"${CMAKE_SOURCE_DIR}/cmake/modulefile.in\"
      \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${HESSPECT_INSTALL_SHARE}/modulefiles/hesspect/${PROJECT_VERSION}\" @ONLY)
    message(STATUS \"Installing: \$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${HESSPECT_INSTALL_SHARE}/modulefiles/hesspect/${PROJECT_VERSION}\")"
    COMPONENT module)
endfunction()
