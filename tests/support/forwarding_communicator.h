// A communicator that hands every call on to another: for tests that listen to what is said, or change it.
#pragma once

#include "hesspect/comm/communicator.h"

namespace hesspect::testing {

class ForwardingCommunicator : public Communicator {
 public:
  explicit ForwardingCommunicator(Communicator& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string backend() const override { return inner_.backend(); }
  void all_reduce_sum(at::Tensor& tensor) override { inner_.all_reduce_sum(tensor); }
  void all_gather(const at::Tensor& shard, at::Tensor& full) override { inner_.all_gather(shard, full); }
  void reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) override { inner_.reduce_scatter_sum(full, shard); }
  void broadcast(at::Tensor& tensor, int root) override { inner_.broadcast(tensor, root); }
  void all_reduce_sum(std::span<double> values) override {
    ++sums;
    inner_.all_reduce_sum(values);
  }
  std::vector<std::string> all_gather_bytes(const std::string& bytes) override {
    ++gathers;
    return inner_.all_gather_bytes(bytes);
  }
  std::string broadcast_bytes(const std::string& bytes, int root = 0) override {
    return inner_.broadcast_bytes(bytes, root);
  }
  void barrier() override { inner_.barrier(); }

  int sums = 0, gathers = 0;  // calls of host values so far

 private:
  Communicator& inner_;
};

}  // namespace hesspect::testing
