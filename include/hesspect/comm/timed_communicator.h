// A communicator whose messages are timed, as one of a run's phases.
#pragma once

#include <memory>
#include <utility>

#include "hesspect/comm/communicator.h"
#include "hesspect/core/phases.h"

namespace hesspect {

class TimedCommunicator final : public Communicator {
 public:
  /// Borrows the clock.
  TimedCommunicator(std::unique_ptr<Communicator> comm, Phases& phases) : comm_(std::move(comm)), phases_(phases) {}

  int rank() const override { return comm_->rank(); }
  int size() const override { return comm_->size(); }
  std::string backend() const override { return comm_->backend(); }
  void all_reduce_sum(at::Tensor& tensor) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "all-reduce");
    comm_->all_reduce_sum(tensor);
  }
  void all_gather(const at::Tensor& shard, at::Tensor& full) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "all-gather");
    comm_->all_gather(shard, full);
  }
  void reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "reduce-scatter");
    comm_->reduce_scatter_sum(full, shard);
  }
  void broadcast(at::Tensor& tensor, int root) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "broadcast");
    comm_->broadcast(tensor, root);
  }
  std::unique_ptr<Pending> begin_all_gather(const at::Tensor& shard, at::Tensor& full) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "all-gather begun");
    return std::make_unique<Waiting>(comm_->begin_all_gather(shard, full), phases_);
  }
  std::unique_ptr<Pending> begin_reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "reduce-scatter begun");
    return std::make_unique<Waiting>(comm_->begin_reduce_scatter_sum(full, shard), phases_);
  }
  void all_reduce_sum(std::span<double> values) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "sum");
    comm_->all_reduce_sum(values);
  }
  std::vector<std::string> all_gather_bytes(const std::string& bytes) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "all-gather of text");
    return comm_->all_gather_bytes(bytes);
  }
  std::string broadcast_bytes(const std::string& bytes, int root = 0) override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "broadcast of text");
    return comm_->broadcast_bytes(bytes, root);
  }
  void barrier() override {
    const PhaseTimer timer(&phases_, Phase::kCollectives, "barrier");
    comm_->barrier();
  }

 private:
  /// Waiting is what counts: the rest went on beside other work.
  class Waiting final : public Pending {
   public:
    Waiting(std::unique_ptr<Pending> message, Phases& phases) : message_(std::move(message)), phases_(phases) {}
    void poll() override { message_->poll(); }
    void wait() override {
      const PhaseTimer timer(&phases_, Phase::kCollectives, "waiting for a message");
      message_->wait();
    }

   private:
    std::unique_ptr<Pending> message_;
    Phases& phases_;
  };

  std::unique_ptr<Communicator> comm_;
  Phases& phases_;
};

}  // namespace hesspect
