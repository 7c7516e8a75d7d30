// One op's rule against LibTorch's autograd, which is the fallback: values, tangents, adjoints and their tangents.
//
//   expect_as_autograd({.op = "aten::softmax.int", .arguments = {x, 1}, .active = {0}});
//
// The rule is run as the sweeps run it: kept and used again with other tangents, rebuilt, and without adjoints as in a
// Gauss-Newton product; with one tangent and several, some of them zero; into sums that are there already or not yet.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../src/tangent/registry.h"

namespace hesspect::test {

struct OpCase {
  std::string op;                      // with its overload, if any: "aten::softmax.int"
  std::vector<c10::IValue> arguments;  // those left out at the end are the schema's defaults
  std::vector<std::size_t> active;     // operands that tangents reach; of a list, all of its items
  std::vector<std::size_t> read{0};    // outputs that later nodes read
  double float_tolerance = 1e-5;       // of the same in float32
  bool is_large = false;               // the array is: it is run in one way and in float64 alone
};

/// An op as a node of a graph, with constant arguments.
struct OpNode {
  Instruction instruction;
  std::vector<c10::IValue> arguments;
  std::vector<Source> sources;

  OpNode(const OpCase& c, at::ScalarType dtype) {
    const auto dot = c.op.find('.');
    instruction.op = c10::Dispatcher::singleton().findSchemaOrThrow(
        c.op.substr(0, dot).c_str(), dot == std::string::npos ? "" : c.op.substr(dot + 1).c_str());
    arguments = c.arguments;
    const auto& parameters = instruction.op->schema().arguments();
    for (std::size_t i = arguments.size(); i < parameters.size(); ++i)
      arguments.push_back(parameters[i].default_value().value());
    const auto converted = [&](const at::Tensor& t) {
      if (!t.defined() || !at::isFloatingType(t.scalar_type())) return t;
      // Layouts stay as they are.
      return at::empty_strided(t.sizes(), t.strides(), t.options().dtype(dtype)).copy_(t);
    };
    for (c10::IValue& argument : arguments) {
      if (argument.isTensor()) argument = converted(argument.toTensor());
      if (!argument.isTensorList()) continue;
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : argument.toTensorVector()) list.push_back(converted(t));
      argument = list;
    }
    for (const std::size_t operand : c.active) {
      const std::size_t items = arguments[operand].isTensor() ? 1 : arguments[operand].toTensorVector().size();
      for (std::size_t item = 0; item < items; ++item)
        sources.push_back({operand, item, static_cast<int>(sources.size())});
    }
  }

  Arguments given() const { return {instruction, sources, arguments}; }
  at::Tensor tensor(const Source& source) const {
    const c10::IValue& argument = arguments[source.operand];
    return argument.isTensor() ? argument.toTensor() : argument.toTensorVector()[source.item];
  }
};

/// How tensors that a rule is given lie in memory.
enum class Lay { kPlain, kWide, kStrided };

/// What happens between two products of one run.
struct Round {
  std::int64_t count = 1;        // K
  bool has_tangents = true;      // of the arguments
  int without = -1;              // this source's tangent is zero
  bool has_adjoint_dots = true;  // of the outputs
  enum class Sums { kNone, kOwn, kForeign } sums = Sums::kNone;
  int unwanted = -1;  // this source's adjoint is not wanted
  Lay lay = Lay::kPlain;
};

/// Plays rounds on a run of an op and notes all that it gives.
class Player {
 public:
  Player(const OpCase& c, const OpNode& node) : case_(c), node_(node) { at::manual_seed(5); }

  struct Noted {
    std::string name;
    at::Tensor value;  // in double; undefined: zero
  };
  std::vector<Noted> noted;

  void play(NodeRun& run, const std::vector<Round>& rounds, bool with_adjoint, bool tangent_first) {
    at::NoGradGuard no_grad;
    outputs_ = run.value();
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (is_read(i)) note("value " + std::to_string(i), outputs_[i]);
    if (with_adjoint && !tangent_first) adjoint(run, rounds[0]);
    for (std::size_t r = 0; r < rounds.size(); ++r) {
      where_ = "round " + std::to_string(r) + ": ";
      if (rounds[r].has_tangents) tangent(run, rounds[r]);
      if (with_adjoint && tangent_first && r == 0) adjoint(run, rounds[r]);
      std::vector<at::Tensor> y_bar_dot(outputs_.size());
      for (std::size_t i = 0; i < outputs_.size(); ++i)
        if (is_read(i) && rounds[r].has_adjoint_dots)
          y_bar_dot[i] = random(rounds[r].count, outputs_[i], rounds[r].lay);
      std::vector<Sum> sums = start(rounds[r], rounds[r].count);
      Sink sink(node_.sources, sums, rounds[r].count);
      run.adjoint_tangent(y_bar_dot, sink);
      take("adjoint tangent of ", sums);
      expect_untouched();
    }
  }

 private:
  bool is_read(std::size_t i) const {
    return std::ranges::find(case_.read, i) != case_.read.end() && outputs_[i].defined() &&
           at::isFloatingType(outputs_[i].scalar_type());
  }

  void note(const std::string& name, const at::Tensor& value) {
    noted.push_back(
        {where_ + name, value.defined() ? value.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true) : at::Tensor()});
  }

  /// The same numbers in every dtype. @return [count, shape of like]
  at::Tensor random(std::int64_t count, const at::Tensor& like, Lay lay) {
    std::vector<std::int64_t> sizes = like.sizes().vec();
    sizes.insert(sizes.begin(), count);
    at::Tensor t = at::randn(sizes, like.options().dtype(at::kDouble)).to(like.scalar_type());
    if (lay == Lay::kWide) {  // a part of longer vectors
      const std::int64_t n = like.numel();
      t = at::constant_pad_nd(t.reshape({count, n}), {2, 1}).narrow(1, 2, n).view(sizes);
    } else if (lay == Lay::kStrided && t.dim() > 1) {
      t = at::stack({t, t}, -1).select(-1, 1);
    }
    given_.emplace_back(t, t.clone());
    return t;
  }

  void adjoint(NodeRun& run, const Round& round) {
    std::vector<at::Tensor> y_bar(outputs_.size());
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (is_read(i)) y_bar[i] = random(1, outputs_[i], round.lay);
    std::vector<Sum> sums = start(round, 1);
    Sink sink(node_.sources, sums, 1);
    run.adjoint(y_bar, sink);
    take("adjoint of ", sums);
  }

  void tangent(NodeRun& run, const Round& round) {
    std::vector<at::Tensor> x_dot;
    for (std::size_t i = 0; i < node_.sources.size(); ++i) {
      const at::Tensor t = random(round.count, node_.tensor(node_.sources[i]), round.lay);
      x_dot.push_back(static_cast<int>(i) == round.without ? at::Tensor() : t);
    }
    const std::vector<at::Tensor> y_dot = run.tangent(Tangents(node_.sources, x_dot, round.count));
    for (std::size_t i = 0; i < outputs_.size(); ++i)
      if (is_read(i)) note("tangent " + std::to_string(i), i < y_dot.size() ? y_dot[i] : at::Tensor());
  }

  std::vector<Sum> start(const Round& round, std::int64_t count) {
    std::vector<Sum> sums(node_.sources.size());
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i].wanted = static_cast<int>(i) != round.unwanted;
      if (round.sums == Round::Sums::kNone) continue;
      sums[i].value = random(count, node_.tensor(node_.sources[i]), round.lay);
      sums[i].own = round.sums == Round::Sums::kOwn;
      if (sums[i].own) given_.pop_back();
    }
    return sums;
  }

  /// Notes what a sink has got, and spoils what its holder may write to: a rule that keeps it will be found out.
  void take(const std::string& name, std::vector<Sum>& sums) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
      note(name + std::to_string(node_.sources[i].operand), sums[i].value);
      if (sums[i].own && sums[i].value.defined()) sums[i].value.fill_(std::numeric_limits<double>::quiet_NaN());
    }
  }

  void expect_untouched() {
    for (const auto& [t, before] : given_) EXPECT_TRUE(at::equal(t, before)) << where_ << "wrote to what it was given";
    given_.clear();
  }

  const OpCase& case_;
  const OpNode& node_;
  std::string where_;
  std::vector<at::Tensor> outputs_;
  std::vector<std::pair<at::Tensor, at::Tensor>> given_;  // and what it was
};

inline double largest(const at::Tensor& t) { return t.numel() == 0 ? 0 : t.abs().max().item<double>(); }

/// The largest difference, as a part of the largest number and 1; NaN must stand in the same places.
inline double difference(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() && !b.defined()) return 0;
  const at::Tensor zero = at::zeros({}, at::kDouble);
  const at::Tensor x = a.defined() ? a : zero.expand_as(b), y = b.defined() ? b : zero.expand_as(a);
  if (x.sizes() != y.sizes() || !at::equal(x.isnan(), y.isnan())) return std::numeric_limits<double>::infinity();
  const at::Tensor finite_y = at::nan_to_num(y);
  return largest(at::nan_to_num(x) - finite_y) / (1 + largest(finite_y));
}

inline void expect_same(const OpCase& c, at::ScalarType dtype, double tolerance) {
  using Sums = Round::Sums;
  const int last = static_cast<int>(OpNode(c, dtype).sources.size()) - 1;
  const int maybe_last = last > 0 ? last : -1, maybe_first = last > 0 ? 0 : -1;
  const std::vector<Round> kept = {
      {.count = 1},
      {.count = 3, .sums = Sums::kOwn, .lay = Lay::kWide},
      {.count = 1, .without = maybe_last, .sums = Sums::kForeign},
      {.count = 2, .without = maybe_first, .sums = Sums::kOwn},
      {.count = 2, .has_adjoint_dots = false, .sums = Sums::kOwn},
      {.count = 1, .has_tangents = false, .unwanted = maybe_first},
      {.count = 2, .unwanted = maybe_last, .lay = Lay::kStrided},
  };
  struct Way {
    const char* name;
    std::vector<Round> rounds;
    bool with_adjoint, tangent_first;
  };
  std::vector<Way> ways = {
      {"kept", kept, true, false},
      {"rebuilt", {{.count = 2, .sums = Sums::kOwn}}, true, true},
      {"strided", {{.count = 1, .lay = Lay::kStrided}}, true, true},
      {"rebuilt without the last", {{.count = 1, .unwanted = maybe_last}}, true, true},
      {"Gauss-Newton", {{.count = 2}, {.count = 1, .without = maybe_first, .sums = Sums::kOwn}}, false, false},
  };
  if (c.is_large) ways = {{"large", {{.count = 1}, {.count = 1, .sums = Sums::kOwn}}, true, false}};
  for (const Way& way : ways) {
    SCOPED_TRACE(c.op + ", " + way.name + (dtype == at::kFloat ? ", float32" : ""));
    const OpNode own_node(c, dtype), oracle_node(c, at::kDouble);
    const MakeRun make = rule_for(own_node.instruction);
    ASSERT_NE(make, nullptr) << "no rule";
    Arguments own_arguments = own_node.given(), oracle_arguments = oracle_node.given();
    const std::unique_ptr<NodeRun> run = make(own_arguments), oracle = fallback(oracle_arguments);
    ASSERT_NE(run, nullptr) << "the rule does not cover this";
    Player own(c, own_node);
    own.play(*run, way.rounds, way.with_adjoint, way.tangent_first);
    Player exact(c, oracle_node);
    exact.play(*oracle, way.rounds, way.with_adjoint, way.tangent_first);
    ASSERT_EQ(own.noted.size(), exact.noted.size());
    for (std::size_t i = 0; i < own.noted.size(); ++i)
      EXPECT_LE(difference(own.noted[i].value, exact.noted[i].value), tolerance) << own.noted[i].name;
  }
}

/// Expects that the op has a rule which covers these arguments and does as autograd, in float64 and float32.
inline void expect_as_autograd(const OpCase& c) {
  expect_same(c, at::kDouble, 1e-12);
  if (!c.is_large) expect_same(c, at::kFloat, c.float_tolerance);
}

/// Expects that autograd is left these arguments.
inline void expect_refused(const OpCase& c) {
  const OpNode node(c, at::kDouble);
  Arguments arguments = node.given();
  const MakeRun make = rule_for(node.instruction);
  EXPECT_TRUE(make == nullptr || make(arguments) == nullptr) << c.op;
}

/// Random numbers [sizes] in float64.
inline at::Tensor numbers(at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble); }

}  // namespace hesspect::test
