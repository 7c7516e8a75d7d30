// Products of one kept micro-batch on a GPU, launched kernel by kernel or, where that is faster, by a graph of launches
// that was recorded once (hesspect/tangent/launch_graph.h).
//
// Of each number of vectors the first products tell what to do: one to warm up, one whose launching and running is
// timed, and one that is recorded where launching took most of that. The graph is replayed on the same vectors at once,
// and kept if it gave the same bits in less time (or the same to rounding, where launches don't give the same bits
// again either). Whatever fails on the way leaves the products as they were.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/tangent/launch_graph.h"

namespace hesspect {

class ReplayedProducts {
 public:
  using Clock = std::function<double()>;  // seconds

  /// @param name  of the micro-batch, for messages. Borrows recorder.
  ReplayedProducts(LaunchRecorder& recorder, std::string name, Clock clock = steady_s);

  /// sums += products. As `product`, which adds them to the sums; a replay does not call it.
  /// @param v, sums  [K, n]: what product reads and adds to. A graph knows one place of both.
  void add(const at::Tensor& v, const at::Tensor& sums, const std::function<void()>& product);
  /// Lets go of all graphs, and records no more.
  void stop();
  /// Lets go of the graphs of vectors and sums that are no longer there.
  void forget() { by_count_.clear(); }
  bool replays() const;

 private:
  /// Products of K vectors.
  struct State {
    int products = 0;
    bool settled = false;  // nothing more is tried
    double launch_by_launch_s = 0;
    at::Tensor v, sums;  // of the graph
    std::unique_ptr<LaunchGraph> graph;
  };

  static double steady_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  double timed(const std::function<void()>& work);
  void time_launches(State& state, const std::function<void()>& product);
  void try_graph(State& state, const at::Tensor& v, const at::Tensor& sums, const std::function<void()>& product);
  bool is_as_good(const at::Tensor& before, const at::Tensor& expected, const at::Tensor& sums,
                  const std::function<void()>& product);
  void say(const std::string& what) const;

  LaunchRecorder& recorder_;
  std::string name_;
  Clock clock_;
  bool stopped_ = false;
  std::map<std::int64_t, State> by_count_;
};

}  // namespace hesspect
