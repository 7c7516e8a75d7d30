#include "fuse.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <vector>

namespace hesspect {
namespace {

class Fuser {
 public:
  explicit Fuser(NodeList& list) : list_(list), is_gone_(list.nodes.size(), false) {
    for (const Operand& output : list_.kept) for_each_slot(output, [&](int slot) { ++uses_[slot]; });
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      for (const Operand& operand : list_.nodes[n].operands) for_each_slot(operand, [&](int slot) { ++uses_[slot]; });
      for (const int slot : list_.nodes[n].outputs)
        if (slot >= 0) maker_[slot] = n;
    }
  }

  void run() {
    // From behind, so that a norm is found with its weight before it is found without.
    for (std::size_t n = list_.nodes.size(); n-- > 0;)
      if (!is_gone_[n] && !fuse_rms_norm(n) && !fuse_gelu(n)) fuse_softmax(n);
    close_gaps();
  }

 private:
  // --- reading the list -------------------------------------------------------------------------------------------

  /// The node that makes the operand, if it is that op, writes to nothing, and its value is read so often.
  std::optional<std::size_t> made_by(const Operand& operand, const char* op, int uses = 1) const {
    if (operand.kind != Operand::Kind::kSlot) return std::nullopt;
    const auto maker = maker_.find(operand.slot);
    if (maker == maker_.end() || uses_.at(operand.slot) != uses || !is(maker->second, op)) return std::nullopt;
    return maker->second;
  }

  bool is(std::size_t n, const char* op) const {
    const Node& node = list_.nodes[n];
    return !is_gone_[n] && !node.op && node.outputs.size() == 1 &&
           node.instruction->kind == Instruction::Kind::kDispatch && node.instruction->op &&
           node.instruction->op->schema().name() == op;
  }

  const Operand& operand(std::size_t n, std::size_t i) const { return list_.nodes[n].operands.at(i); }

  static bool is_slot(const Operand& operand) { return operand.kind == Operand::Kind::kSlot; }
  /// A constant number, which may be a tensor where the op takes one.
  static std::optional<double> number(const Operand& operand) {
    if (operand.kind != Operand::Kind::kConstant) return std::nullopt;
    const c10::IValue& value = operand.constant;
    const bool is_tensor = value.isTensor() && value.toTensor().defined() && value.toTensor().dim() == 0;
    if (!is_tensor && !value.isScalar()) return std::nullopt;
    const at::Scalar scalar = is_tensor ? value.toTensor().item() : value.toScalar();
    return scalar.isComplex() ? std::nullopt : std::optional<double>(scalar.toDouble());
  }
  static bool is_number(const Operand& operand, double expected) {
    const std::optional<double> value = number(operand);
    return value && std::abs(*value - expected) <= 1e-15 * std::abs(expected);
  }
  /// add(a, b, alpha) with alpha = 1.
  bool is_plain_add(std::size_t n) const { return list_.nodes[n].operands.size() < 3 || is_number(operand(n, 2), 1); }

  /// The two operands in both orders, until f is content.
  template <class F>
  bool either(std::size_t n, F&& f) const {
    return f(operand(n, 0), operand(n, 1)) || f(operand(n, 1), operand(n, 0));
  }

  // --- RMS norm ---------------------------------------------------------------------------------------------------

  struct RmsNorm {
    Operand x, eps;
    Operand weight = constant({}), type = constant({});  // None where there is none
    std::vector<std::size_t> nodes;
  };

  static Operand constant(c10::IValue value) {
    Operand operand;
    operand.constant = std::move(value);
    return operand;
  }

  /// x · rsqrt(mean(pow(x, 2), -1, True) + eps).
  std::optional<RmsNorm> plain_rms_norm(std::size_t n) const {
    if (!is(n, "aten::mul")) return std::nullopt;
    std::optional<RmsNorm> found;
    either(n, [&](const Operand& x, const Operand& scale) {
      const auto root = made_by(scale, "aten::rsqrt");
      const auto sum = root ? made_by(operand(*root, 0), "aten::add") : std::nullopt;
      if (!sum || !is_plain_add(*sum) || !number(operand(*sum, 1))) return false;
      const auto mean = made_by(operand(*sum, 0), "aten::mean");
      if (!mean || !is_mean_of_rows(*mean)) return false;
      const auto square = made_by(operand(*mean, 0), "aten::pow");
      if (!square || !is_slot(x) || !is_slot(operand(*square, 0)) || operand(*square, 0).slot != x.slot ||
          !is_number(operand(*square, 1), 2))
        return false;
      found.emplace();
      found->x = x;
      found->eps = constant(*number(operand(*sum, 1)));
      found->nodes = {*square, *mean, *sum, *root, n};
      return true;
    });
    return found;
  }

  bool is_mean_of_rows(std::size_t n) const {
    const std::vector<Operand>& operands = list_.nodes[n].operands;
    if (operands.size() != 4 || !operands[1].constant.isIntList() || !operands[2].constant.isBool()) return false;
    return operands[1].constant.toIntVector() == std::vector<std::int64_t>{-1} && operands[2].constant.toBool() &&
           operands[3].kind == Operand::Kind::kConstant && operands[3].constant.isNone();
  }

  /// The graph's inputs, and what is made of them alone: what a weight may be.
  bool is_weight(const Operand& operand) const {
    if (!is_slot(operand)) return false;
    const auto maker = maker_.find(operand.slot);
    if (maker == maker_.end()) return true;
    bool of_weights = !is_gone_[maker->second];
    for (const Operand& from : list_.nodes[maker->second].operands)
      for_each_slot(from, [&](int slot) { of_weights = of_weights && !maker_.contains(slot); });
    return of_weights;
  }

  bool fuse_rms_norm(std::size_t n) {
    if (!is(n, "aten::mul")) return false;
    std::optional<RmsNorm> norm;
    either(n, [&](const Operand& weight, const Operand& normal) {
      if (!is_weight(weight)) return false;
      const auto converted = made_by(normal, "aten::to");
      const bool converts = converted && list_.nodes[*converted].instruction->op->schema().overload_name() == "dtype" &&
                            operand(*converted, 1).constant.isInt();
      const auto core = made_by(converts ? operand(*converted, 0) : normal, "aten::mul");
      if (core) norm = plain_rms_norm(*core);
      if (!norm) return false;
      norm->weight = weight;
      if (converts) norm->type = operand(*converted, 1);
      if (converts) norm->nodes.push_back(*converted);
      norm->nodes.push_back(n);
      return true;
    });
    if (!norm) norm = plain_rms_norm(n);
    if (!norm) return false;
    return replace(norm->nodes, "aten::rms_norm", {norm->x, constant({}), norm->weight, norm->eps, norm->type});
  }

  // --- GELU -------------------------------------------------------------------------------------------------------

  /// The node of mul(a, factor).
  std::optional<std::size_t> scaled(const Operand& operand_of, double factor) const {
    const auto product = made_by(operand_of, "aten::mul");
    return product && is_number(operand(*product, 1), factor) ? product : std::nullopt;
  }

  bool fuse_gelu(std::size_t n) {
    if (!is(n, "aten::mul")) return false;
    return either(n, [&](const Operand& left, const Operand& right) {
      const auto half = scaled(left, 0.5), one = made_by(right, "aten::add");
      if (!half || !one || !is_plain_add(*one) || !is_number(operand(*one, 1), 1)) return false;
      const Operand& x = operand(*half, 0);
      const auto tanh = made_by(operand(*one, 0), "aten::tanh");
      const auto inner = tanh ? scaled(operand(*tanh, 0), std::sqrt(2 / M_PI)) : std::nullopt;
      const auto sum = inner ? made_by(operand(*inner, 0), "aten::add") : std::nullopt;
      if (!is_slot(x) || !sum || !is_plain_add(*sum) || !is_x(operand(*sum, 0), x)) return false;
      const auto term = scaled(operand(*sum, 1), 0.044715);
      const auto cube = term ? made_by(operand(*term, 0), "aten::pow") : std::nullopt;
      if (!cube || !is_x(operand(*cube, 0), x) || !is_number(operand(*cube, 1), 3)) return false;
      return replace({*half, *cube, *term, *sum, *inner, *tanh, *one, n}, "aten::gelu",
                     {x, constant(c10::IValue("tanh"))});
    });
  }

  static bool is_x(const Operand& operand, const Operand& x) { return is_slot(operand) && operand.slot == x.slot; }

  // --- softmax of scaled and masked scores ------------------------------------------------------------------------

  /// What tangents do not reach.
  bool is_still(const Operand& operand) const { return is_slot(operand) && !list_.active[index(operand.slot)]; }

  struct Scores {
    Operand of;
    double scale = 1;
    Operand mask = constant({});  // None where there is none
    bool fills = false;           // where the mask is true the score is −∞; else the mask is added
    std::vector<std::size_t> nodes;
  };

  void take_mask(Scores& scores) const {
    if (const auto fill = made_by(scores.of, "aten::masked_fill"); fill && is_still(operand(*fill, 1))) {
      const std::optional<double> value = number(operand(*fill, 2));
      if (!value || *value != -std::numeric_limits<double>::infinity()) return;
      scores.mask = operand(*fill, 1);
      scores.fills = true;
      scores.of = operand(*fill, 0);
      scores.nodes.push_back(*fill);
    } else if (const auto sum = made_by(scores.of, "aten::add"); sum && is_plain_add(*sum)) {
      either(*sum, [&](const Operand& left, const Operand& mask) {
        if (!is_still(mask) || !is_slot(left)) return false;
        scores.mask = mask;
        scores.of = left;
        scores.nodes.push_back(*sum);
        return true;
      });
    }
  }

  void take_scale(Scores& scores) const {
    const auto quotient = made_by(scores.of, "aten::div"), product = made_by(scores.of, "aten::mul");
    if (!quotient && !product) return;
    const std::size_t n = quotient ? *quotient : *product;
    const std::optional<double> factor = number(operand(n, 1));
    if (!factor || *factor == 0 || !is_slot(operand(n, 0)) || list_.nodes[n].operands.size() > 2) return;
    scores.scale = quotient ? 1 / *factor : *factor;
    scores.of = operand(n, 0);
    scores.nodes.push_back(n);
  }

  bool fuse_softmax(std::size_t n) {
    if (!is(n, "aten::softmax") && !is(n, "aten::_softmax")) return false;
    Scores scores;
    scores.of = operand(n, 0);
    scores.nodes = {n};
    take_mask(scores);
    take_scale(scores);
    if (scores.nodes.size() == 1 || !operand(n, 1).constant.isInt()) return false;
    return replace(
        scores.nodes, "aten::_masked_softmax",
        {scores.of, operand(n, 1), operand(n, 2), constant(scores.scale), scores.mask, constant(scores.fills)});
  }

  // --- writing it -------------------------------------------------------------------------------------------------

  /// Puts one node in the place of the last of these, unless a node in between writes to a tensor.
  bool replace(std::vector<std::size_t> nodes, const char* op, std::vector<Operand> operands) {
    std::ranges::sort(nodes);
    for (std::size_t n = nodes.front(); n < nodes.back(); ++n) {
      const std::vector<bool>& writes = list_.nodes[n].instruction->writes;
      if (!is_gone_[n] && !list_.nodes[n].op && std::ranges::find(writes, true) != writes.end()) return false;
    }
    Node& last = list_.nodes[nodes.back()];
    auto instruction = std::make_unique<Instruction>();
    instruction->kind = Instruction::Kind::kSubgraph;
    instruction->op = c10::Dispatcher::singleton().findSchemaOrThrow(op, "");
    instruction->origin = last.instruction->origin;
    instruction->origin.target = std::string(op).substr(6) + ", written out";
    instruction->operands = operands;
    instruction->writes.assign(operands.size(), false);
    instruction->outputs = last.outputs;
    instruction->subgraph = std::make_unique<Graph>();
    Graph& graph = *instruction->subgraph;
    graph.slots = list_.slots;
    // What the rule takes beside the region's own arguments has slots that nothing reads.
    for (const Operand& operand : operands) graph.inputs.push_back(is_slot(operand) ? operand.slot : graph.slots++);
    graph.outputs = {slot_operand(last.outputs[0])};
    for (const std::size_t n : nodes) {
      const Node& node = list_.nodes[n];
      Instruction inner;
      inner.op = node.instruction->op;
      inner.operands = node.operands;
      inner.outputs = node.outputs;
      inner.writes = node.instruction->writes;
      inner.origin = node.instruction->origin;
      graph.instructions.push_back(std::move(inner));
      is_gone_[n] = true;
    }
    is_gone_[nodes.back()] = false;
    last.instruction = instruction.get();
    last.operands = std::move(operands);
    list_.regions.push_back(std::move(instruction));
    return true;
  }

  void close_gaps() {
    std::vector<Node> nodes;
    std::vector<std::size_t> position;
    for (std::size_t n = 0; n < list_.nodes.size(); ++n) {
      position.push_back(nodes.size());
      if (!is_gone_[n]) nodes.push_back(std::move(list_.nodes[n]));
    }
    std::set<std::size_t> uncut;
    for (const std::size_t p : list_.uncut) uncut.insert(position[p]);
    list_.nodes = std::move(nodes);
    list_.uncut = std::move(uncut);
  }

  NodeList& list_;
  std::vector<bool> is_gone_;         // per node: it is part of another
  std::map<int, int> uses_;           // per slot: operands that read it
  std::map<int, std::size_t> maker_;  // per slot
};

}  // namespace

void fuse(NodeList& list) { Fuser(list).run(); }

}  // namespace hesspect
