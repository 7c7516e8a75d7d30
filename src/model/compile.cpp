#include "compile.h"

#include <ATen/ATen.h>
#include <ATen/core/enum_tag.h>

#include <limits>

#include "archive.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/model/executor.h"
#include "vmap.h"

namespace hesspect {
namespace {

using c10::IValue;
using nlohmann::json;

/// The single key and value of a tagged union such as {"as_int": 3}.
std::pair<std::string, const json*> tagged(const json& value) {
  if (!value.is_object() || value.size() != 1) throw InputError("is broken: " + value.dump().substr(0, 80));
  return {value.begin().key(), &value.begin().value()};
}

/// The schema writes non-finite floats as strings.
double float_value(const json& value) {
  if (value.is_number()) return value.get<double>();
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  throw InputError("has a broken float " + value.dump().substr(0, 40));
}

at::MemoryFormat memory_format(std::int64_t code) {
  static constexpr at::MemoryFormat kFormats[] = {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast,
                                                  at::MemoryFormat::ChannelsLast3d, at::MemoryFormat::Preserve};
  if (code < 1 || code > std::ssize(kFormats))
    throw InputError("has an unknown memory format code " + std::to_string(code));
  return kFormats[code - 1];
}

Operand constant(IValue value) {
  Operand operand;
  operand.constant = std::move(value);
  return operand;
}

template <class Element, class Read>
Operand constant_list(const json& values, Read&& read) {
  c10::List<Element> list;
  for (const json& value : values) list.push_back(read(value));
  return constant(list);
}

bool is_symbol(const std::string& key) { return key == "as_sym_int" || key == "as_sym_float" || key == "as_sym_bool"; }

std::string name_in(const json& value) { return value.at("name").get<std::string>(); }

c10::TypePtr without_optional(c10::TypePtr type) {
  while (auto optional = type->cast<c10::OptionalType>()) type = optional->getElementType();
  return type;
}

c10::TypePtr list_element(const c10::Argument* argument) {
  if (argument == nullptr) return nullptr;
  const auto list = without_optional(argument->type())->cast<c10::ListType>();
  return list ? list->getElementType() : nullptr;
}

bool is_constant_number(const IValue& value, double expected) {
  return (value.isDouble() && value.toDouble() == expected) ||
         (value.isInt() && static_cast<double>(value.toInt()) == expected);
}

constexpr std::size_t kMostVmapLevels = 64;  // LibTorch's functorch nests no deeper

/// Custom ops of other libraries that are an aten op by another name, argument for argument.
std::optional<std::string> aten_op_for(const std::string& space, const std::string& name) {
  if (space == "aten") return name;
  if (space == "transformers" && name == "grouped_mm_fallback") return "_grouped_mm";
  return std::nullopt;
}

std::string advice_on_higher_order(const std::string& name) {
  if (name == "wrap_with_autocast") return ": half precision would be noise in the products; export without autocast";
  if (name.starts_with("flex_attention"))
    return ": it has no double backward; export with scaled_dot_product_attention";
  return ": control flow has no double backward; only wrap_with_set_grad_enabled and disabled autocast can be";
}

class GraphCompiler {
 public:
  GraphCompiler(const json& source, const std::set<std::string>& external, const CompileOptions& options)
      : source_(source), external_(external), options_(options) {}

  Graph run() {
    for (const json& input : source_.at("inputs")) {
      const int slot = define_input(input);
      graph_.inputs.push_back(slot);
      if (!input.contains("as_tensor")) continue;
      const std::string name = name_in(input.at("as_tensor"));
      if (external_.contains(name)) external_slots_.emplace(slot, name);
    }
    for (const json& node : source_.at("nodes")) add_node(node);
    for (const json& output : source_.at("outputs")) graph_.outputs.push_back(output_operand(output));
    if (!vmap_begins_.empty()) throw InputError(options_.where + "its graph begins a torch.vmap that does not end");
    drop_unread_outputs(graph_);
    keep_ops_whose_side_outputs_are_read(graph_);
    if (writes_in_place(graph_)) keep_views(graph_);
    find_last_uses(graph_);
    find_continuous();
    return std::move(graph_);
  }

 private:
  int define(const std::string& name) {
    const auto [it, fresh] = slots_.emplace(name, graph_.slots);
    if (!fresh) throw InputError(options_.where + "value '" + name + "' is defined twice in its graph");
    return graph_.slots++;
  }

  int define_input(const json& input) {
    const auto [key, value] = tagged(input);
    if (key == "as_tensor") return define(name_in(*value));
    if (is_symbol(key) && value->contains("as_name")) return define(value->at("as_name").get<std::string>());
    if (key == "as_custom_obj") throw InputError(options_.where + "takes a custom object, which cannot be run");
    graph_.slots++;  // a constant input: nothing reads it
    return graph_.slots - 1;
  }

  Operand value_operand(const std::string& name) const {
    const auto it = slots_.find(name);
    if (it == slots_.end()) throw InputError("reads '" + name + "', which no node before it defines");
    return slot_operand(it->second);
  }

  /// {"name": "x"}, {"as_tensor": {"name": "x"}} or {"as_none": …}
  Operand optional_tensor(const json& value) const {
    if (value.contains("name")) return value_operand(name_in(value));
    const auto [key, inner] = tagged(value);
    return key == "as_none" ? constant(IValue()) : value_operand(name_in(*inner));
  }

  /// {"as_name": "s"} or {"as_int": 3}
  Operand symbol_operand(const json& value) const {
    const auto [key, inner] = tagged(value);
    if (key == "as_name") return value_operand(inner->get<std::string>());
    if (key == "as_int") return constant(integer_from(*inner));
    if (key == "as_bool") return constant(inner->get<bool>());
    return constant(float_value(*inner));
  }

  Operand symbol_list(const json& values, Operand::Kind kind) const {
    Operand operand;
    operand.kind = kind;
    for (const json& value : values) operand.items.push_back(symbol_operand(value));
    return operand;
  }

  Operand tensor_list(const json& values, const c10::Argument* argument) const {
    Operand operand;
    const c10::TypePtr element = list_element(argument);
    const bool optional = element && element->kind() == c10::TypeKind::OptionalType;
    operand.kind = optional ? Operand::Kind::kOptionalTensorList : Operand::Kind::kTensorList;
    for (const json& value : values) operand.items.push_back(optional_tensor(value));
    return operand;
  }

  Operand int_list(const json& values, const c10::Argument* argument) const {
    const c10::TypePtr element = list_element(argument);
    if (element && element->kind() == c10::TypeKind::FloatType)
      return constant_list<double>(values, [](const json& value) { return value.get<double>(); });
    return constant_list<std::int64_t>(values, integer_from);
  }

  /// One int where the op's schema has a float or a list of fixed length.
  Operand int_operand(std::int64_t value, const c10::Argument* argument) const {
    if (argument != nullptr) {
      const c10::TypePtr type = without_optional(argument->type());
      if (type->kind() == c10::TypeKind::FloatType) return constant(static_cast<double>(value));
      if (type->kind() == c10::TypeKind::ListType && argument->N()) {
        c10::List<std::int64_t> list;
        for (int i = 0; i < *argument->N(); ++i) list.push_back(value);
        return constant(list);
      }
    }
    return constant(value);
  }

  Operand operand_from(const json& argument, const c10::Argument* schema) const {
    const auto [key, value] = tagged(argument);
    if (key == "as_none") return constant(IValue());
    if (key == "as_tensor") return value_operand(name_in(*value));
    if (key == "as_tensors" || key == "as_optional_tensors") return tensor_list(*value, schema);
    if (key == "as_optional_tensor") return optional_tensor(*value);
    if (key == "as_int") return int_operand(integer_from(*value), schema);
    if (key == "as_ints") return int_list(*value, schema);
    if (key == "as_float") return constant(float_value(*value));
    if (key == "as_complex")
      return constant(c10::complex<double>(float_value(value->at("real")), float_value(value->at("imag"))));
    if (key == "as_floats") return constant_list<double>(*value, float_value);
    if (key == "as_bool") return constant(value->get<bool>());
    if (key == "as_bools") return constant_list<bool>(*value, [](const json& element) { return element.get<bool>(); });
    if (key == "as_string") return constant(value->get<std::string>());
    if (is_symbol(key)) return symbol_operand(*value);
    if (key == "as_sym_ints") return symbol_list(*value, Operand::Kind::kIntList);
    if (key == "as_sym_floats") return symbol_list(*value, Operand::Kind::kFloatList);
    if (key == "as_scalar_type")
      return constant(static_cast<std::int64_t>(options_.map_dtype(scalar_type_from_schema(integer_from(*value)))));
    if (key == "as_memory_format") return constant(static_cast<std::int64_t>(memory_format(integer_from(*value))));
    if (key == "as_layout") {
      if (integer_from(*value) != 7) throw InputError("uses a sparse layout, which cannot be differentiated here");
      return constant(static_cast<std::int64_t>(at::kStrided));
    }
    if (key == "as_device") return constant(options_.device);
    throw InputError("has an argument of a kind that cannot be run (" + key + ")");
  }

  Operand output_operand(const json& output) const {
    const auto [key, value] = tagged(output);
    try {
      if (key == "as_tensor" || is_symbol(key)) return operand_from(output, nullptr);
    } catch (const InputError& e) {
      throw InputError(options_.where + "the graph's output " + e.what());
    }
    return constant(IValue());  // ints, None and the like: not a tensor to take a loss of
  }

  void add_node(const json& node) {
    const Origin origin = origin_of(node);
    try {
      add_node_unguarded(node, origin);
    } catch (const InputError& e) {
      const std::string what = e.what();
      if (what.starts_with(options_.where)) throw;  // a nested graph's message is complete
      throw InputError(options_.where + origin.describe() + " " + what);
    } catch (const json::exception& e) {
      throw InputError(options_.where + origin.describe() + " is broken in the file (" + e.what() + ")");
    }
  }

  void add_node_unguarded(const json& node, const Origin& origin) {
    const std::string& target = origin.target;
    Instruction instruction;
    instruction.origin = origin;
    if (target.starts_with("torch.ops.higher_order.")) {
      add_higher_order(node, std::move(instruction));
    } else if (const auto symbolic = symbolic_op_from(target)) {
      instruction.kind = Instruction::Kind::kSymbolic;
      instruction.symbolic = *symbolic;
      for (const json& input : node.at("inputs")) {
        Operand operand = operand_from(input.at("arg"), nullptr);
        if (operand.kind == Operand::Kind::kIntList || operand.kind == Operand::Kind::kFloatList) {
          for (Operand& item : operand.items) instruction.operands.push_back(std::move(item));
        } else {
          instruction.operands.push_back(std::move(operand));
        }
      }
      set_outputs(node, instruction);
      finish(std::move(instruction));
    } else if (target.starts_with("torch.ops.")) {
      add_op(node, std::move(instruction));
    } else if (const auto step = vmap_step_from(target)) {
      add_vmap_step(*step, node, std::move(instruction));
    } else if (target.starts_with("torch._functorch.")) {
      throw InputError("belongs to a transform of torch.func other than vmap: trace it with make_fx before the export");
    } else {
      throw InputError("is not an operation that hesspect runs");
    }
  }

  void add_vmap_step(VmapStep step, const json& node, Instruction instruction) {
    if (step == VmapStep::kPrepare) return;  // loads Python's decompositions, which backward passes inside need
    if (step == VmapStep::kEnd) {
      if (vmap_begins_.empty()) throw InputError("ends a torch.vmap that did not begin");
      fold_vmap_region(graph_.instructions, vmap_begins_.back());
      vmap_begins_.pop_back();
      return;
    }
    std::vector<Operand> given;
    for (const json& input : node.at("inputs")) given.push_back(operand_from(input.at("arg"), nullptr));
    const std::size_t expected = step == VmapStep::kBegin ? 2 : step == VmapStep::kAddBatchDim ? 3 : 4;
    if (given.size() != expected) throw InputError("has " + std::to_string(given.size()) + " arguments");
    if (step == VmapStep::kBegin) {  // (batch size, randomness)
      instruction.kind = Instruction::Kind::kVmap;
      instruction.origin.target = "torch.vmap";
      if (vmap_begins_.size() == kMostVmapLevels) throw InputError("is nested too deeply: LibTorch has 64 levels");
      vmap_begins_.push_back(graph_.instructions.size());
    } else if (vmap_begins_.empty()) {
      throw InputError("stands outside of a torch.vmap");
    } else {  // the level is always the innermost one
      const bool adds = step == VmapStep::kAddBatchDim;
      given.erase(given.begin() + (adds ? 2 : 1));
      instruction.kind = adds ? Instruction::Kind::kAddBatchDim : Instruction::Kind::kRemoveBatchDim;
      set_outputs(node, instruction);
      follow_alias(given.at(0), instruction);
    }
    instruction.operands = std::move(given);
    finish(std::move(instruction));
  }

  void add_higher_order(const json& node, Instruction instruction) {
    const std::string name = instruction.origin.target.substr(std::string("torch.ops.higher_order.").size());
    const json& inputs = node.at("inputs");
    std::size_t graph_at = 0;
    if (name == "wrap_with_set_grad_enabled") {
      graph_at = 1;
      instruction.grad_mode = inputs.at(0).at("arg").at("as_bool").get<bool>();
    } else if (name == "wrap_with_autocast" && inputs.size() > 4 && inputs[2].at("arg").contains("as_bool") &&
               !inputs[2].at("arg").at("as_bool").get<bool>()) {
      graph_at = 4;  // (device_type, dtype, enabled = False, cache_enabled, graph, …): autocast is off here anyway
    } else {
      throw InputError("is a higher-order op, which cannot be run here" + advice_on_higher_order(name));
    }
    const json& inner = inputs.at(graph_at).at("arg").at("as_graph").at("graph");
    std::set<std::string> inner_external;  // names of the inner graph that alias something that must not be written
    std::size_t index = 0;
    for (std::size_t i = graph_at + 1; i < inputs.size(); ++i, ++index) {
      instruction.operands.push_back(operand_from(inputs[i].at("arg"), nullptr));
      const Operand& operand = instruction.operands.back();
      if (operand.kind != Operand::Kind::kSlot || !external_slots_.contains(operand.slot)) continue;
      const json& inner_input = inner.at("inputs").at(index);
      if (inner_input.contains("as_tensor")) inner_external.insert(name_in(inner_input["as_tensor"]));
    }
    instruction.kind = Instruction::Kind::kSubgraph;
    instruction.subgraph = std::make_unique<Graph>(GraphCompiler(inner, inner_external, options_).run());
    if (instruction.subgraph->inputs.size() != instruction.operands.size())
      throw InputError("passes " + std::to_string(instruction.operands.size()) + " values to a graph of " +
                       std::to_string(instruction.subgraph->inputs.size()));
    set_outputs(node, instruction);
    if (instruction.outputs.size() != instruction.subgraph->outputs.size())
      throw InputError("takes " + std::to_string(instruction.outputs.size()) + " values from a graph that returns " +
                       std::to_string(instruction.subgraph->outputs.size()));
    finish(std::move(instruction));
  }

  void add_op(const json& node, Instruction instruction) {
    // torch.ops.<namespace>.<name>.<overload>
    const std::string& target = instruction.origin.target;
    const std::size_t name_at = target.find('.', 10);
    const std::size_t overload_at = target.rfind('.');
    if (name_at == std::string::npos || overload_at <= name_at) throw InputError("has a malformed target");
    const std::string space = target.substr(10, name_at - 10);
    std::string name = target.substr(name_at + 1, overload_at - name_at - 1);
    const std::string overload = target.substr(overload_at + 1);
    if (space == "aten" && (name.starts_with("_assert") || name.starts_with("sym_constrain_range"))) return;
    const std::optional<std::string> aten = aten_op_for(space, name);
    instruction.op = c10::Dispatcher::singleton().findSchema(
        {aten ? "aten::" + *aten : space + "::" + name, overload == "default" ? "" : overload});
    if (!instruction.op)
      throw InputError(space == "aten" ? "is not an op of this LibTorch; was the model exported by a newer PyTorch?"
                                       : "is a custom op whose library is not part of LibTorch");
    bind_arguments(node, instruction, /*by_name=*/!aten || space == "aten");
    if (aten) name = *aten;
    // A sparse gradient has the same values, in a form that cannot be differentiated again.
    if (space == "aten" && name == "embedding" && instruction.operands.size() > 4)
      instruction.operands[4] = constant(false);
    refuse_train_mode(name, instruction);
    if (name.find("as_strided") != std::string::npos || name == "_reshape_alias") refuse_other_strides(node);
    set_outputs(node, instruction);
    track_aliases(instruction);
    rewrite(name, instruction);
    finish(std::move(instruction));
  }

  void bind_arguments(const json& node, Instruction& instruction, bool by_name) const {
    const std::vector<c10::Argument>& arguments = instruction.op->schema().arguments();
    std::vector<const json*> given(arguments.size(), nullptr);
    std::size_t position = 0;
    for (const json& input : node.at("inputs")) {
      const std::string name = input.value("name", "");
      std::size_t index = position;
      if (by_name && !name.empty())
        for (index = 0; index < arguments.size() && arguments[index].name() != name; ++index) {
        }
      if (index >= arguments.size())
        throw InputError("has an argument '" + name + "' that this LibTorch's op does not take");
      given[index] = &input.at("arg");
      ++position;
    }
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      if (given[i] != nullptr) {
        instruction.operands.push_back(operand_from(*given[i], &arguments[i]));
        Operand& operand = instruction.operands.back();
        operand.wrap_number = without_optional(arguments[i].type())->kind() == c10::TypeKind::TensorType;
        if (operand.wrap_number && operand.kind == Operand::Kind::kConstant)
          operand.constant = wrapped_number(operand.constant);
      } else if (arguments[i].default_value()) {
        instruction.operands.push_back(constant(*arguments[i].default_value()));
      } else if (arguments[i].type()->kind() == c10::TypeKind::OptionalType) {
        instruction.operands.push_back(constant(IValue()));
      } else {
        throw InputError("lacks the argument '" + arguments[i].name() + "'");
      }
      const c10::AliasInfo* alias = arguments[i].alias_info();
      instruction.writes.push_back(alias != nullptr && alias->isWrite());
    }
  }

  /// What is bound to the argument of that name; nullptr where the op has none.
  static const Operand* bound_argument(const Instruction& instruction, const std::string& name) {
    const auto& arguments = instruction.op->schema().arguments();
    for (std::size_t i = 0; i < arguments.size(); ++i)
      if (arguments[i].name() == name) return &instruction.operands[i];
    return nullptr;
  }

  /// The same where it is a constant, else nullptr.
  static const IValue* constant_argument(const Instruction& instruction, const std::string& name) {
    const Operand* operand = bound_argument(instruction, name);
    return operand != nullptr && operand->kind == Operand::Kind::kConstant ? &operand->constant : nullptr;
  }

  static bool is_true(const Instruction& instruction, const std::string& name) {
    const IValue* value = constant_argument(instruction, name);
    return value != nullptr && value->isBool() && value->toBool();
  }

  static bool is_given(const Instruction& instruction, const std::string& name) {
    const Operand* operand = bound_argument(instruction, name);
    return operand != nullptr && (operand->kind != Operand::Kind::kConstant || !operand->constant.isNone());
  }

  static void refuse_train_mode(const std::string& name, const Instruction& instruction) {
    const bool training = is_true(instruction, "training") || is_true(instruction, "train");
    // Without running statistics a norm changes nothing: instance norm, or a batch norm whose rows are told apart by
    // the check of rows.
    const bool has_mode_of_norm = constant_argument(instruction, "training") != nullptr ||
                                  constant_argument(instruction, "use_input_stats") != nullptr;
    const bool takes_statistics = training || is_true(instruction, "use_input_stats") || !has_mode_of_norm;
    if ((name.find("batch_norm") != std::string::npos || name == "instance_norm") &&
        name.find("no_training") == std::string::npos && takes_statistics && is_given(instruction, "running_mean"))
      throw InputError("is a norm in train mode, which changes its buffers at every run; export after model.eval()");
    if (!instruction.op->hasTag(at::Tag::nondeterministic_seeded)) return;
    // Ops that may draw random numbers: allowed where their arguments say that they do not.
    for (const char* probability : {"dropout_p", "p", "dropout"}) {
      const IValue* value = constant_argument(instruction, probability);
      if (value != nullptr && is_constant_number(*value, 0.0)) return;
    }
    const bool has_mode =
        constant_argument(instruction, "training") != nullptr || constant_argument(instruction, "train") != nullptr;
    if (has_mode && !training) return;
    throw InputError(has_mode
                         ? "is a dropout in train mode: the loss would change at every run; export after model.eval()"
                         : "draws random numbers: the loss would change at every run");
  }

  /// An op that reads memory by strides is only known to read the same here where its argument lay in order, from the
  /// beginning of its memory on.
  void refuse_other_strides(const json& node) const {
    const json& argument = node.at("inputs").at(0).at("arg");
    if (!argument.contains("as_tensor")) return;
    const std::string name = name_in(argument["as_tensor"]);
    const auto values = source_.find("tensor_values");
    if (values == source_.end() || !values->contains(name)) return;
    const json& meta = (*values)[name];
    // A number, or the example's where a size may vary.
    const auto number = [](const json& value) {
      const json hint = value.contains("as_expr") ? value["as_expr"].value("hint", json()) : value;
      return hint.is_object() && hint.contains("as_int") ? hint["as_int"].get<std::int64_t>() : -1;
    };
    const json sizes = meta.value("sizes", json::array()), strides = meta.value("strides", json::array());
    std::int64_t in_order = 1;
    bool fits = number(meta.value("storage_offset", json())) == 0;
    for (std::size_t d = sizes.size(); d-- > 0; in_order *= number(sizes[d]))
      fits = fits && (number(sizes[d]) == 1 || (d < strides.size() && number(strides[d]) == in_order));
    if (!fits)
      throw InputError(
          "reads the memory of '" + name +
          "' by strides, which lies otherwise than in order; call .contiguous() on it before, or index it");
  }

  void set_outputs(const json& node, Instruction& instruction) {
    const auto define_output = [&](const json& output) {
      const auto [key, value] = tagged(output);
      if (key == "as_tensor" || key == "as_optional_tensor") {
        const std::string name = value->value("name", "");
        return name.empty() ? -1 : define(name);
      }
      return is_symbol(key) && value->contains("as_name") ? define(value->at("as_name").get<std::string>()) : -1;
    };
    const json& outputs = node.at("outputs");
    if (outputs.size() == 1 && (outputs[0].contains("as_tensors") || outputs[0].contains("as_optional_tensors"))) {
      instruction.spreads_list = instruction.kind == Instruction::Kind::kDispatch;
      for (const json& tensor : outputs[0].begin().value())
        instruction.outputs.push_back(tensor.contains("name") ? define(name_in(tensor)) : define_output(tensor));
      return;
    }
    for (const json& output : outputs) {
      if (output.contains("as_tensors")) throw InputError("returns a list among other values, which is not supported");
      instruction.outputs.push_back(define_output(output));
    }
  }

  /// Refuses writes to what outlives the run, and follows views of it.
  void track_aliases(const Instruction& instruction) {
    const auto& arguments = instruction.op->schema().arguments();
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].alias_info() == nullptr) continue;
      std::vector<const Operand*> tensors{&instruction.operands[i]};
      for (const Operand& item : instruction.operands[i].items) tensors.push_back(&item);
      for (const Operand* tensor : tensors) {
        if (tensor->kind != Operand::Kind::kSlot || !external_slots_.contains(tensor->slot)) continue;
        if (instruction.writes[i] && instruction.op->schema().name() != "aten::detach_")
          throw InputError("writes to '" + external_slots_.at(tensor->slot) +
                           "' in place: a mutated buffer, parameter or input would change the loss at every run");
        follow_alias(*tensor, instruction);
      }
    }
  }

  /// What is made from an operand that must not be written to must not be written to either.
  void follow_alias(const Operand& operand, const Instruction& instruction) {
    if (operand.kind != Operand::Kind::kSlot || !external_slots_.contains(operand.slot)) return;
    for (const int output : instruction.outputs)
      if (output >= 0) external_slots_.emplace(output, external_slots_.at(operand.slot));
  }

  /// Chooses the form that an op runs in, by what is known of its arguments.
  void rewrite(const std::string& name, Instruction& instruction) {
    const Rewrite* form = rewrite_for(name, instruction.op->schema().overload_name());
    if (form == nullptr || instruction.op->schema().name() != "aten::" + name) return;
    std::vector<IValue> constants;  // None where the argument is known only at run time
    std::vector<bool> given;
    for (const Operand& operand : instruction.operands) {
      given.push_back(operand.kind != Operand::Kind::kConstant);
      constants.push_back(operand.kind == Operand::Kind::kConstant ? operand.constant : IValue());
    }
    if (!can_rewrite(*form, constants, given)) return;
    instruction.kind = Instruction::Kind::kRewritten;
    instruction.rewrite = form;
  }

  /// A rewritten op gives its first output alone: where the program reads another, the op itself runs.
  static void keep_ops_whose_side_outputs_are_read(Graph& graph) {
    const std::set<int> read = slots_read(graph);
    for (Instruction& instruction : graph.instructions) {
      for (std::size_t i = 1; instruction.kind == Instruction::Kind::kRewritten && i < instruction.outputs.size(); ++i)
        if (read.contains(instruction.outputs[i])) instruction.kind = Instruction::Kind::kDispatch;
      if (instruction.kind == Instruction::Kind::kVmap) keep_ops_whose_side_outputs_are_read(*instruction.subgraph);
    }
  }

  static bool writes_in_place(const Graph& graph) {
    return std::ranges::any_of(graph.instructions, [](const Instruction& instruction) {
      return std::ranges::find(instruction.writes, true) != instruction.writes.end() ||
             (instruction.kind == Instruction::Kind::kVmap && writes_in_place(*instruction.subgraph));
    });
  }

  /// What is written to a view must reach what it is a view of.
  static void keep_views(Graph& graph) {
    for (Instruction& instruction : graph.instructions) {
      if (instruction.kind == Instruction::Kind::kRewritten && instruction.rewrite->copies)
        instruction.kind = Instruction::Kind::kDispatch;
      if (instruction.kind == Instruction::Kind::kVmap) keep_views(*instruction.subgraph);
    }
  }

  void finish(Instruction instruction) {
    instruction.writes.resize(instruction.operands.size(), false);
    graph_.instructions.push_back(std::move(instruction));
  }

  static void find_last_uses(Graph& graph) {
    std::vector<int> last(static_cast<std::size_t>(graph.slots), -1);
    for (std::size_t i = 0; i < graph.instructions.size(); ++i) {
      if (graph.instructions[i].kind == Instruction::Kind::kVmap) find_last_uses(*graph.instructions[i].subgraph);
      const int at = static_cast<int>(i);
      for (const int slot : graph.instructions[i].outputs)
        if (slot >= 0) last[static_cast<std::size_t>(slot)] = at;  // never read: dies at once
      for (const Operand& operand : graph.instructions[i].operands)
        for_each_slot(operand, [&](int slot) { last[static_cast<std::size_t>(slot)] = at; });
    }
    for (const Operand& output : graph.outputs)
      for_each_slot(output, [&](int slot) { last[static_cast<std::size_t>(slot)] = -1; });
    for (int slot = 0; slot < graph.slots; ++slot)
      if (last[static_cast<std::size_t>(slot)] >= 0)
        graph.instructions[static_cast<std::size_t>(last[static_cast<std::size_t>(slot)])].dead.push_back(slot);
  }

  /// The schema numbers the integer types 1 to 5, and bool 12.
  void find_continuous() {
    graph_.continuous.assign(static_cast<std::size_t>(graph_.slots), false);
    const auto value_meta = [&](const char* table, const std::string& name) {
      const auto values = source_.find(table);
      return values != source_.end() && values->contains(name) ? &(*values)[name] : nullptr;
    };
    for (const auto& [name, slot] : slots_) {
      const json* tensor = value_meta("tensor_values", name);
      const std::int64_t type = tensor != nullptr ? type_code_of(*tensor) : 0;
      const bool is_float = value_meta("sym_float_values", name) != nullptr || (type > 5 && type != 12);
      graph_.continuous[static_cast<std::size_t>(slot)] = is_float;
    }
    find_continuous_inside(graph_);
  }

  /// Fills in `continuous` in regions of torch.vmap, whose slots were this graph's.
  void find_continuous_inside(const Graph& graph) {
    for (const Instruction& instruction : graph.instructions) {
      if (instruction.kind != Instruction::Kind::kVmap) continue;
      Graph& inner = *instruction.subgraph;
      for (const int outer : inner.folded_from)
        inner.continuous.push_back(graph_.continuous[static_cast<std::size_t>(outer)]);
      find_continuous_inside(inner);
    }
  }

  const json& source_;
  const std::set<std::string>& external_;
  const CompileOptions& options_;
  Graph graph_;
  std::unordered_map<std::string, int> slots_;
  std::vector<std::size_t> vmap_begins_;                 // instructions that begin the regions which are open
  std::unordered_map<int, std::string> external_slots_;  // slots that alias what outlives the run, by its name
};

}  // namespace

std::string Origin::describe() const {
  std::string op = target;
  if (op.starts_with("torch.ops.")) op = op.substr(10);
  return one_line("node '" + node + "' (" + op + (source.empty() ? "" : ", from " + source) + ")");
}

Origin origin_of(const json& node) {
  Origin origin;
  origin.target = node.value("target", "");
  const json name = node.value("name", json());
  if (name.is_string()) origin.node = name.get<std::string>();
  if (node.contains("metadata") && node["metadata"].contains("stack_trace") &&
      node["metadata"]["stack_trace"].is_string())
    origin.source = user_source_line(node["metadata"]["stack_trace"].get<std::string>());
  if (origin.node.empty()) {
    for (const json& output : node.value("outputs", json::array()))
      if (output.contains("as_tensor")) origin.node = output["as_tensor"].value("name", "");
  }
  return origin;
}

Operand slot_operand(int slot) {
  Operand operand;
  operand.kind = Operand::Kind::kSlot;
  operand.slot = slot;
  return operand;
}

std::set<int> slots_read(const Graph& graph) {
  std::set<int> read;
  const auto note = [&](int slot) { read.insert(slot); };
  for (const Instruction& instruction : graph.instructions)
    for (const Operand& operand : instruction.operands) for_each_slot(operand, note);
  for (const Operand& output : graph.outputs) for_each_slot(output, note);
  return read;
}

Graph compile_graph(const json& graph, const std::set<std::string>& external, const CompileOptions& options) {
  try {
    return GraphCompiler(graph, external, options).run();
  } catch (const InputError& e) {
    throw InputError(one_line(e.what()));  // names come out of the file
  } catch (const json::exception& e) {
    throw InputError(one_line(options.where + "its graph is broken (" + e.what() + ")"));
  }
}

std::string user_source_line(const std::string& trace) {
  std::string best, fallback;
  std::size_t at = 0;
  while (at < trace.size()) {
    const std::size_t file_at = trace.find("File \"", at);
    if (file_at == std::string::npos) break;
    const std::size_t file_end = trace.find('"', file_at + 6);
    if (file_end == std::string::npos) break;
    std::size_t line_end = trace.find('\n', file_end);
    if (line_end == std::string::npos) line_end = trace.size();
    const std::string file = trace.substr(file_at + 6, file_end - file_at - 6);
    std::string position = trace.substr(file_end + 1, line_end - file_end - 1);  // ", line 12, in forward"
    std::size_t code_end = trace.find('\n', line_end + 1);
    if (code_end == std::string::npos) code_end = trace.size();
    std::string code = line_end < trace.size() ? trace.substr(line_end + 1, code_end - line_end - 1) : "";
    code.erase(0, code.find_first_not_of(" \t"));
    if (code.starts_with("File \"")) code.clear();
    if (position.starts_with(", line ")) position = position.substr(7);
    const std::string frame = file.substr(file.rfind('/') + 1) + ":" + position + (code.empty() ? "" : ": " + code);
    const bool torch_own =
        file.find("site-packages/torch/") != std::string::npos || file.starts_with("torch/") || file.starts_with("<");
    if (!torch_own) best = frame;
    fallback = frame;
    at = line_end;
  }
  return best.empty() ? fallback : best;
}

}  // namespace hesspect
