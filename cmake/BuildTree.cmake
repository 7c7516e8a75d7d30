# HESSPECT_BUILD_TREE: installs the programs of a build tree of these sources (and makes them there where they are old), so that an environment
# gets them without a compiler's minutes:
#
#   pip install . -C cmake.define.HESSPECT_BUILD_TREE=$PWD/build/release

cmake_path(ABSOLUTE_PATH HESSPECT_BUILD_TREE NORMALIZE OUTPUT_VARIABLE build_tree)
if(NOT SKBUILD)
  message(FATAL_ERROR "HESSPECT_BUILD_TREE is for pip: cmake --install ${build_tree} --prefix PREFIX needs no other tree")
endif()
if(NOT EXISTS "${build_tree}/CMakeCache.txt")
  message(FATAL_ERROR "HESSPECT_BUILD_TREE=${build_tree} is no build tree: launch/build makes build/release")
endif()
load_cache("${build_tree}" READ_WITH_PREFIX tree_ CMAKE_HOME_DIRECTORY HESSPECT_TORCH_VERSION HESSPECT_PACKAGES_OF_TREE)
if(NOT tree_CMAKE_HOME_DIRECTORY STREQUAL CMAKE_SOURCE_DIR)
  message(FATAL_ERROR "HESSPECT_BUILD_TREE=${build_tree} was made from ${tree_CMAKE_HOME_DIRECTORY}, not from ${CMAKE_SOURCE_DIR}")
endif()
include(TorchWheel)
if(HESSPECT_TORCH_MISSING OR NOT tree_HESSPECT_TORCH_VERSION STREQUAL TORCH_VERSION)
  if(NOT HESSPECT_TORCH_MISSING)
    set(HESSPECT_TORCH_MISSING "${HESSPECT_PYTHON} has torch ${TORCH_VERSION}")
  endif()
  message(FATAL_ERROR "HESSPECT_BUILD_TREE=${build_tree} was built against torch ${tree_HESSPECT_TORCH_VERSION}, but ${HESSPECT_TORCH_MISSING}")
endif()
if(NOT tree_HESSPECT_PACKAGES_OF_TREE STREQUAL HESSPECT_PACKAGES)
  message(FATAL_ERROR "HESSPECT_BUILD_TREE=${build_tree} is for environments with packages in ${tree_HESSPECT_PACKAGES_OF_TREE}, but ${HESSPECT_PYTHON} has them in "
    "${HESSPECT_PACKAGES}: -DHESSPECT_PYTHON=${HESSPECT_PYTHON} makes a tree for it")
endif()

add_custom_target(program COMMAND "${CMAKE_COMMAND}" --build "${build_tree}" --target hesspect USES_TERMINAL)
set(stage "${CMAKE_BINARY_DIR}/stage")
install(CODE "
  file(REMOVE_RECURSE \"${stage}\")
  execute_process(COMMAND \"${CMAKE_COMMAND}\" --install \"${build_tree}\" --component program --prefix \"${stage}\" COMMAND_ERROR_IS_FATAL ANY)
  file(INSTALL \"${stage}/bin/\" DESTINATION \"${HESSPECT_INSTALL_BIN}\" USE_SOURCE_PERMISSIONS)
  file(GLOB libraries \"${stage}/lib/hesspect/*.so\")
  file(INSTALL \${libraries} DESTINATION \"${HESSPECT_INSTALL_LIB}\" USE_SOURCE_PERMISSIONS)"
  COMPONENT program)
