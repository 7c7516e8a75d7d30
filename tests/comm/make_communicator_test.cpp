#include "hesspect/comm/make_communicator.h"

#include <gtest/gtest.h>

#include "hesspect/core/errors.h"

namespace hesspect::make_communicator_test {
namespace {

TEST(MakeCommunicator, OneRankIsLocal) {
  auto host = make_host_communicator();
  EXPECT_EQ(host->backend(), "local");
  EXPECT_EQ(make_communicator(c10::Device(c10::kCPU), std::move(host))->backend(), "local");
}

TEST(MakeCommunicator, Devices) {
  LocalCommunicator host;
  EXPECT_TRUE(choose_device("cpu", host).is_cpu());
  EXPECT_THROW(choose_device("gpu", host), UsageError);
  if (cuda_device_count() == 0) {
    EXPECT_TRUE(choose_device("auto", host).is_cpu());
    EXPECT_THROW(choose_device("cuda", host), UsageError);
  } else {
    EXPECT_EQ(choose_device("auto", host), c10::Device(c10::kCUDA, 0));
    EXPECT_EQ(choose_device("cuda", host), c10::Device(c10::kCUDA, 0));
  }
}

}  // namespace
}  // namespace hesspect::make_communicator_test
