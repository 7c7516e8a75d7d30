// That the simulation finds what it is there to find: each of these is what only a machine with a GPU would show.
#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>

#include <csignal>

#include "hesspect/core/gpu_support.h"
#include "hesspect/tangent/launch_graph.h"

namespace hesspect::simulation_test {
namespace {

const c10::Device kGpu(at::kCUDA, 0);

at::Tensor on_gpu(std::vector<float> values) { return at::tensor(values).to(kGpu); }

c10::Stream another_stream() {
  return c10::impl::VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool(kGpu, /*isHighPriority=*/false);
}
c10::Stream current_stream() { return c10::impl::VirtualGuardImpl(at::kCUDA).getStream(kGpu); }

class Simulation : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(gpu_library().support != nullptr ? gpu_library().support->device_count() : 0, 1); }
};

using SimulationDeathTest = Simulation;

TEST_F(SimulationDeathTest, TheHostCanNotReadADevicesMemory) {
  const at::Tensor x = on_gpu({1, 2, 3});
  EXPECT_EXIT(static_cast<void>(*static_cast<volatile float*>(x.data_ptr())), ::testing::KilledBySignal(SIGSEGV), "");
}

TEST_F(SimulationDeathTest, ATensorOfTheHostIsRefused) {
  const at::Tensor x = on_gpu({1, 2, 3});
  EXPECT_DEATH(x.index_select(0, at::tensor({2, 0}, at::kLong)), "index_select is given a tensor of the host, \\[2\\]");
  EXPECT_EQ((x + at::scalar_tensor(2.0)).sum().item<double>(), 12);  // of no dimension, as LibTorch allows
}

TEST_F(SimulationDeathTest, StreamsOfWhichNeitherWaitsAreFound) {
  const at::Tensor x = on_gpu({1, 2, 3}), y = at::zeros_like(x);
  const auto beside = [&] {
    const c10::StreamGuard guard(another_stream());
    y.copy_(x);
  };
  EXPECT_DEATH(beside(), "copy_ .* memory on stream .* writes on stream .*, and neither waits for the other");
  EXPECT_DEATH((x.sum().item<float>(), beside(), x.zero_()), "zero_ writes memory .* reads on stream");
}

TEST_F(Simulation, StreamsThatWaitAreNot) {
  const at::Tensor x = on_gpu({1, 2, 3}), y = at::zeros_like(x);
  const c10::Stream other = another_stream();
  c10::Event given(at::kCUDA), copied(at::kCUDA);
  given.record(current_stream());
  given.block(other);
  {
    const c10::StreamGuard guard(other);
    y.copy_(x);
  }
  copied.record(other);
  copied.block(current_stream());
  x.zero_();
  EXPECT_EQ(y.sum().item<float>(), 6);
}

TEST_F(Simulation, CopiesOfPageLockedMemoryAreLate) {
  const at::Tensor locked = at::empty({3}, at::TensorOptions().pinned_memory(true)).fill_(1);
  at::Tensor x = at::zeros({3}, at::TensorOptions().device(kGpu));
  x.copy_(locked, /*non_blocking=*/true);
  locked.fill_(2);  // too early
  EXPECT_EQ(x.sum().item<float>(), 6);
  locked.copy_(x.add(1), /*non_blocking=*/true);
  EXPECT_TRUE(locked.isnan().all().item<bool>());  // read too early
  current_stream().synchronize();
  EXPECT_EQ(locked.sum().item<float>(), 9);
}

TEST_F(Simulation, MemoryThatNothingWasWrittenToIsNotANumber) {
  EXPECT_TRUE(at::empty({3}, at::TensorOptions().device(kGpu)).isnan().all().item<bool>());
}

TEST_F(Simulation, WhatIsRecordedIsDoneByReplaysAlone) {
  const std::unique_ptr<LaunchRecorder> recorder = launch_recorder(kGpu);
  const at::Tensor x = on_gpu({1, 2, 3}), sum = at::zeros_like(x);
  at::Tensor made;
  const std::unique_ptr<LaunchGraph> graph = recorder->record([&] {
    made = x * 2;
    sum.add_(made);
  });
  EXPECT_EQ(sum.sum().item<float>(), 0);
  EXPECT_TRUE(made.isnan().all().item<bool>());
  graph->replay();
  x.fill_(1);
  graph->replay();
  EXPECT_EQ(sum.sum().item<float>(), 12 + 6);
  EXPECT_EQ(made.sum().item<float>(), 6);
}

}  // namespace
}  // namespace hesspect::simulation_test
