// The main of the tests that run alone.
#include <gtest/gtest.h>

#include "hesspect/core/gpu_support.h"
#include "support/chosen_files.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  hesspect::gpu_library();  // before LibTorch is asked for GPUs
  return hesspect::test::choose_files(argc, argv) ? RUN_ALL_TESTS() : 1;
}
