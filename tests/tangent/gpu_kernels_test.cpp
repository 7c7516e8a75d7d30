// That the kernels compile for GPUs, on machines that have none; kernels_test runs them where there is one.
#include "hesspect/tangent/gpu_kernels.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/temporary_folder.h"

namespace hesspect::gpu_kernels_test {
namespace {

bool is_machine_code_with_kernels(const std::string& image) {
  bool all = image.substr(0, 4) ==
             "\x7f"
             "ELF";
  for (const char* name : {"layer_norm_adjoint_tangent_float", "pointwise_value_double", "rows_add_float"})
    all = all && image.find(name) != std::string::npos;
  return all;
}

// Each compilation takes ten seconds: AreKeptForTheNextProcess has the other generation.
TEST(GpuKernels, CompileForTheGenerationsInUse) {
  EXPECT_THROW(fused::compile_for_gpu(10), std::runtime_error);
  const char* value = std::getenv("HESSPECT_LONG");
  if (value == nullptr || std::string(value) != "1") GTEST_SKIP() << "with HESSPECT_LONG=1";
  EXPECT_TRUE(is_machine_code_with_kernels(fused::compile_for_gpu(80)));
}

TEST(GpuKernels, AGpuNewerThanTheCompilerGetsPtx) {
  EXPECT_NE(fused::compile_for_gpu(990).find(".visible .entry layer_norm_value_float"), std::string::npos);
}

TEST(GpuKernels, AreKeptForTheNextProcess) {
  const test::TemporaryFolder folder;
  const std::filesystem::path inner = folder.path() / "not_there_yet";
  EXPECT_TRUE(is_machine_code_with_kernels(fused::gpu_image(90, inner)));
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(inner)) files.push_back(entry.path());
  ASSERT_EQ(files.size(), 1U);
  EXPECT_TRUE(is_machine_code_with_kernels(fused::read_image(files[0])));
  fused::write_image(files[0], "planted");
  EXPECT_EQ(fused::gpu_image(90, inner), "planted");
}

TEST(GpuKernels, AFileThatIsNotWholeIsNone) {
  const test::TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "image";
  EXPECT_EQ(fused::read_image(file), "");
  fused::write_image(file, "machine code");
  EXPECT_EQ(fused::read_image(file), "machine code");
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  EXPECT_EQ(fused::read_image(file), "");
  std::filesystem::resize_file(file, 10);
  EXPECT_EQ(fused::read_image(file), "");
  fused::write_image(file / "below_a_file", "machine code");  // can't be: no error
}

}  // namespace
}  // namespace hesspect::gpu_kernels_test
