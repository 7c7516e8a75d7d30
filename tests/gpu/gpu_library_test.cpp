// That the library for GPUs is whole, on machines that have none too: loaded as the program loads it, but with every
// symbol looked up at once.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/core/gpu_support.h"
#include "hesspect/tangent/launch_graph.h"

namespace hesspect::gpu_library_test {
namespace {

// The first of the tests, for the next one loads them.
TEST(GpuLibrary, AProcessStartsWithoutLibTorchsLibrariesForGpus) {
  if (gpu_library().support != nullptr) GTEST_SKIP() << "there is a driver";
  EXPECT_EQ(dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD), nullptr);
}

TEST(GpuLibrary, LoadsWithAllItsSymbols) {
  void* const library = dlopen("libhesspect_gpu.so", RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto entry = reinterpret_cast<const GpuSupport* (*)()>(dlsym(library, "hesspect_gpu_support"));
  ASSERT_NE(entry, nullptr) << dlerror();
  const GpuSupport& support = *entry();
  const bool has_driver = gpu_library().support != nullptr;
  EXPECT_EQ(support.device_count(), cuda_device_count());
  if (!has_driver) EXPECT_EQ(support.device_count(), 0);
  if (support.device_count() == 0) {
    EXPECT_EQ(support.compute_capability(0), 0);
    EXPECT_ANY_THROW(support.device_identity(0));
    EXPECT_ANY_THROW(support.launch_recorder(0)->record([] {}));
    EXPECT_ANY_THROW(support.run_kernel("layer_norm_value", false, nullptr, 1, 1, 0));
  }
}

TEST(GpuLibrary, IsThereOrSaysWhyNot) {
  const GpuLibrary& gpu = gpu_library();
  EXPECT_FALSE(gpu.is_broken) << gpu.lack;
  EXPECT_EQ(gpu.support == nullptr, !gpu.lack.empty());
}

}  // namespace
}  // namespace hesspect::gpu_library_test
