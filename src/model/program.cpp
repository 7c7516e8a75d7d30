#include "hesspect/model/program.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/DefaultDtype.h>

#include <algorithm>
#include <set>

#include "archive.h"
#include "executor.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"
#include "hesspect/core/text.h"
#include "program_impl.h"

namespace hesspect {
namespace {

using nlohmann::json;

/// Attention in its plain mathematical form (the fused kernels have no double backward), and no TF32: a product's noise
/// broadens the spectrum's bulk.
void set_backends() {
  auto& context = at::globalContext();
  context.setSDPUseFlash(false);
  context.setSDPUseMemEfficient(false);
  context.setSDPUseCuDNN(false);
  context.setSDPUseOverrideable(false);
  context.setSDPUseMath(true);
  context.setAllowTF32CuDNN(false);
  context.setAllowTF32CuBLAS(false);
}

/// Bits of precision that order the floating types.
int precision(at::ScalarType type) {
  switch (type) {
    case at::kBFloat16: return 8;
    case at::kHalf: return 11;
    case at::kFloat: return 24;
    case at::kDouble: return 53;
    default: return 0;
  }
}

/// A dimension of a tensor's meta: {"as_int": 3} or {"as_expr": {"expr_str": "Symbol('s43', …)"}}.
Dimension dimension_from(const json& size, const json& ranges) {
  Dimension dimension;
  if (size.contains("as_int")) {
    dimension.size = integer_from(size.at("as_int"));
    if (dimension.size < 0) throw InputError("has a negative size");
    return dimension;
  }
  std::string expression = size.at("as_expr").value("expr_str", "?");
  if (expression.starts_with("Symbol('") && expression.find('(', 8) == std::string::npos) {
    expression = expression.substr(8, expression.find('\'', 8) - 8);
  }
  dimension.symbol = expression;
  if (ranges.is_object() && ranges.contains(expression)) {
    const json& range = ranges[expression];
    if (range.contains("min_val") && range["min_val"].is_number_integer())
      dimension.min = range["min_val"].get<std::int64_t>();
    if (range.contains("max_val") && range["max_val"].is_number_integer())
      dimension.max = range["max_val"].get<std::int64_t>();
  }
  return dimension;
}

std::string describe_shape(const std::vector<Dimension>& shape) {
  std::string text = "[";
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (d > 0) text += ", ";
    text += shape[d].is_static() ? std::to_string(shape[d].size) : shape[d].symbol;
  }
  return text + "]";
}

/// Builds Program::Impl from an archive.
class Loader {
 public:
  Loader(const std::filesystem::path& path, const ProgramOptions& options)
      : archive_(path), impl_(std::make_unique<Program::Impl>()) {
    impl_->options = options;
    impl_->where = archive_.where();
  }

  std::unique_ptr<Program::Impl> run() {
    try {
      const json& module = archive_.model().at("graph_module");
      impl_->torch_version = archive_.model().value("torch_version", "");
      find_program_dtype(module.at("signature"));
      read_signature(module);
      check_mutations(module);
      compile(module.at("graph"));
      read_outputs(module);
    } catch (const json::exception& e) {
      throw InputError(impl_->where + "its graph is broken (" + e.what() + ")");
    }
    make_leaves();
    return std::move(impl_);
  }

 private:
  /// The dtype that most parameters have is the program's own.
  void find_program_dtype(const json& signature) {
    std::map<at::ScalarType, std::int64_t> elements;
    for (const json& spec : signature.at("input_specs")) {
      if (!spec.contains("parameter")) continue;
      const auto found = archive_.weights().find(spec["parameter"].at("parameter_name").get<std::string>());
      if (found == archive_.weights().end() || precision(found->second.dtype) == 0) continue;
      std::int64_t numel = 1;
      for (const std::int64_t size : found->second.sizes) numel *= std::max<std::int64_t>(size, 0);
      elements[found->second.dtype] += numel;
    }
    std::int64_t most = 0;
    for (const auto& [type, count] : elements)
      if (count > most) {
        most = count;
        impl_->program_dtype = type;
      }
  }

  void read_signature(const json& module) {
    const json& specs = module.at("signature").at("input_specs");
    const json& graph = module.at("graph");
    if (specs.size() != graph.at("inputs").size())
      throw InputError(impl_->where + "its signature and its graph disagree on the number of inputs");
    using Feed = Program::Impl::Feed;
    for (const json& spec : specs) {
      if (spec.contains("parameter")) {
        impl_->feeds.push_back(add_parameter(spec["parameter"].at("parameter_name").get<std::string>()));
        name_external(spec["parameter"].at("arg").at("name"));
      } else if (spec.contains("buffer")) {
        const json& buffer = spec["buffer"];
        impl_->feeds.push_back(
            add_tensor(buffer.at("buffer_name").get<std::string>(), buffer.value("persistent", true), false));
        name_external(buffer.at("arg").at("name"));
      } else if (spec.contains("tensor_constant")) {
        const json& item = spec["tensor_constant"];
        impl_->feeds.push_back(add_tensor(item.at("tensor_constant_name").get<std::string>(), false, false));
        name_external(item.at("arg").at("name"));
      } else if (spec.contains("user_input")) {
        impl_->feeds.push_back(add_user_input(spec["user_input"].at("arg"), graph));
      } else if (spec.contains("constant_input") || spec.contains("token")) {
        impl_->feeds.push_back(Feed{});
      } else {
        throw InputError(impl_->where + "takes an input that cannot be run: " + spec.dump().substr(0, 100));
      }
    }
  }

  void name_external(const json& name) { external_.insert(name.get<std::string>()); }

  Program::Impl::Feed add_parameter(const std::string& name) {
    const auto found = archive_.weights().find(name);
    if (found == archive_.weights().end())
      throw InputError(impl_->where + "holds no weight for the parameter '" + name + "'");
    const ArchivedTensor& archived = found->second;
    if (!archived.requires_grad || precision(archived.dtype) == 0) return add_tensor(name, true, true);
    // Tied weights: several names of one record, shape and strides are one parameter.
    for (std::size_t i = 0; i < tied_.size(); ++i) {
      const ArchivedTensor& other = *tied_[i].first;
      if (is_empty(archived) || other.record != archived.record || other.storage_offset != archived.storage_offset)
        continue;
      if (other.sizes != archived.sizes || other.strides != archived.strides)
        throw InputError(impl_->where + "the parameters '" + tied_[i].second + "' and '" + name +
                         "' are different views of one weight, which cannot be counted once");
      aliases_[i].push_back(name);
      return {Program::Impl::Feed::Kind::kParameter, i};
    }
    tied_.emplace_back(&archived, name);
    aliases_.emplace_back();
    return {Program::Impl::Feed::Kind::kParameter, tied_.size() - 1};
  }

  static bool is_empty(const ArchivedTensor& tensor) {
    return std::find(tensor.sizes.begin(), tensor.sizes.end(), 0) != tensor.sizes.end();
  }

  Program::Impl::Feed add_tensor(const std::string& name, bool persistent, bool is_parameter) {
    const ArchivedTensor* archived = nullptr;
    for (const auto* table : {&archive_.weights(), &archive_.constants()}) {
      const auto found = table->find(name);
      if (found != table->end() && archived == nullptr) archived = &found->second;
    }
    if (archived == nullptr) throw InputError(impl_->where + "holds no data for the buffer or constant '" + name + "'");
    for (std::size_t i = 0; i < impl_->tensors.size() && !is_empty(*archived); ++i) {
      const ArchivedTensor& other = *frozen_[i];
      if (other.record != archived->record || other.storage_offset != archived->storage_offset ||
          other.sizes != archived->sizes || other.strides != archived->strides)
        continue;
      impl_->tensors[i].aliases.push_back(name);
      return {Program::Impl::Feed::Kind::kTensor, i};
    }
    frozen_.push_back(archived);
    at::Tensor tensor = archive_.read(name, *archived);
    take(name, tensor);
    const at::ScalarType type = impl_->map_dtype(archived->dtype);
    tensor = tensor.to(at::TensorOptions().dtype(type).device(impl_->options.device), false, /*copy=*/true);
    impl_->tensors.push_back({name, {}, tensor, persistent, is_parameter});
    return {Program::Impl::Feed::Kind::kTensor, impl_->tensors.size() - 1};
  }

  /// Fills in dtype and shape of an input or output from the meta of the value of its name.
  template <class Spec>
  void read_meta(const json& graph, Spec& spec) const {
    const json& meta = graph.at("tensor_values").at(spec.name);
    const json& model = archive_.model();
    static const json kNone = json::object();
    const json& ranges = model.contains("range_constraints") ? model["range_constraints"] : kNone;
    try {
      spec.dtype = scalar_type_from_schema(integer_from(meta.at("dtype")));
      for (const json& size : meta.at("sizes")) spec.shape.push_back(dimension_from(size, ranges));
    } catch (const InputError& e) {
      throw InputError(impl_->where + "value '" + spec.name + "': " + e.what());
    }
  }

  Program::Impl::Feed add_user_input(const json& argument, const json& graph) {
    if (!argument.contains("as_tensor")) {
      if (argument.contains("as_sym_int") || argument.contains("as_sym_float"))
        throw InputError(impl_->where + "takes a dynamic number as an input (" + argument.dump().substr(0, 80) +
                         "); only tensors can come from the data, so export it as a constant");
      return {};  // a constant, None or string: baked into the graph
    }
    const std::string name = argument["as_tensor"].at("name").get<std::string>();
    name_external(argument["as_tensor"].at("name"));
    InputSpec spec;
    spec.name = name;
    read_meta(graph, spec);
    impl_->inputs.push_back(std::move(spec));
    return {Program::Impl::Feed::Kind::kUserInput, impl_->inputs.size() - 1};
  }

  /// Of an output of the signature: {"user_output": {…}}.
  std::pair<std::string, const json*> kind_and_content(const json& spec) const {
    if (!spec.is_object() || spec.empty())
      throw InputError(impl_->where + "its graph is broken (an output of no kind: " + spec.dump().substr(0, 80) + ")");
    return {spec.begin().key(), &spec.begin().value()};
  }

  /// Outputs that are mutated buffers, parameters or inputs: the program would not be the same at the next run.
  void check_mutations(const json& module) {
    for (const json& spec : module.at("signature").at("output_specs")) {
      if (spec.contains("user_output") || spec.contains("loss_output") || spec.contains("token")) continue;
      const auto [kind, content] = kind_and_content(spec);
      const json& body = *content;
      const std::string value = body.at("arg").value("name", "");
      std::string target =
          body.value("buffer_name", body.value("parameter_name", body.value("user_input_name", value)));
      std::string node_text;
      for (const json& node : module.at("graph").at("nodes"))
        for (const json& output : node.at("outputs"))
          if (output.contains("as_tensor") && output["as_tensor"].value("name", "") == value)
            node_text = origin_of(node).describe() + " ";
      throw InputError(
          impl_->where + node_text + "writes to '" + target + "' (" + kind +
          "): a mutated buffer, parameter or input would change the loss at every run; export after model.eval()");
    }
  }

  void compile(const json& graph) {
    CompileOptions options;
    options.map_dtype = [impl = impl_.get()](at::ScalarType type) { return impl->map_dtype(type); };
    options.device = impl_->options.device;
    options.where = impl_->where;
    impl_->graph = compile_graph(graph, external_, options);
    std::map<std::string, std::int64_t> counts;
    count_ops(impl_->graph, counts);
    for (const auto& [op, count] : counts) impl_->ops.push_back({op, count});
    std::stable_sort(impl_->ops.begin(), impl_->ops.end(),
                     [](const auto& a, const auto& b) { return a.count > b.count; });
  }

  static void count_ops(const Graph& graph, std::map<std::string, std::int64_t>& counts) {
    for (const Instruction& instruction : graph.instructions) {
      std::string name = instruction.origin.target;
      if (name.starts_with("torch.ops.")) name = name.substr(10);
      ++counts[name];
      if (instruction.subgraph) count_ops(*instruction.subgraph, counts);
    }
  }

  void read_outputs(const json& module) {
    const json& graph = module.at("graph");
    const json& specs = module.at("signature").at("output_specs");
    for (std::size_t i = 0; i < specs.size() && i < impl_->graph.outputs.size(); ++i) {
      const json& body = *kind_and_content(specs[i]).second;
      const json& argument = body.at("arg");
      OutputSpec spec;
      const json* tensor = argument.contains("as_tensor") ? &argument["as_tensor"]
                           : argument.contains("name")    ? &argument
                                                          : nullptr;
      spec.is_tensor = tensor != nullptr;
      spec.dtype = at::kFloat;
      if (tensor != nullptr) {
        spec.name = tensor->at("name").get<std::string>();
        if (graph.at("tensor_values").contains(spec.name)) read_meta(graph, spec);
      }
      impl_->outputs.push_back(std::move(spec));
    }
  }

  void make_leaves() {
    for (std::size_t i = 0; i < tied_.size(); ++i) {
      ParameterEntry entry;
      entry.name = tied_[i].second;
      entry.aliases = aliases_[i];
      entry.shape = tied_[i].first->sizes;
      entry.stored_dtype = tied_[i].first->dtype;
      entry.numel = 1;
      for (const std::int64_t size : entry.shape) entry.numel *= size;
      impl_->layout.add(std::move(entry));
    }
    if (impl_->layout.size() == 0)
      throw InputError(impl_->where + "has no trainable parameters (exported with requires_grad = False?)");
    std::vector<at::Tensor> stored;  // first, so that what the file lacks costs no memory
    for (const auto& [archived, name] : tied_) {
      stored.push_back(archive_.read(name, *archived));
      take(name, stored.back());
    }
    impl_->flat = at::empty({impl_->layout.size()},
                            at::TensorOptions().dtype(impl_->options.dtype).device(impl_->options.device));
    const std::vector<at::Tensor> views = impl_->layout.views(impl_->flat);
    for (std::size_t i = 0; i < tied_.size(); ++i) {
      views[i].copy_(stored[i]);
      impl_->leaves.push_back(views[i].detach().requires_grad_(true));
    }
  }

  /// Counts what a tensor will take in memory. Strides of 0 make much of little data: no model that people export has
  /// tensors of many times its file, and a damaged one must not take all there is.
  void take(const std::string& name, const at::Tensor& tensor) {
    taken_bytes_ += tensor.numel() * tensor.element_size();
    if (taken_bytes_ > archive_.most_bytes())
      throw InputError(impl_->where + "tensor '" + name + "' of shape " + format_shape(tensor.sizes().vec()) +
                       " repeats its few stored elements to more than ten times the file");
  }

  Pt2Archive archive_;
  std::int64_t taken_bytes_ = 0;
  std::unique_ptr<Program::Impl> impl_;
  std::set<std::string> external_;
  std::vector<std::pair<const ArchivedTensor*, std::string>> tied_;
  std::vector<std::vector<std::string>> aliases_;
  std::vector<const ArchivedTensor*> frozen_;  // of impl_->tensors
};

}  // namespace

DefaultDtypeScope::DefaultDtypeScope(at::ScalarType type) : saved_(c10::get_default_dtype()) {
  c10::set_default_dtype(c10::scalarTypeToTypeMeta(type));
}

DefaultDtypeScope::~DefaultDtypeScope() { c10::set_default_dtype(saved_); }

at::ScalarType Program::Impl::map_dtype(at::ScalarType type) const {
  const int from = precision(type), program = precision(program_dtype), run = precision(options.dtype);
  if (from == 0 || run == program) return type;  // as exported
  if (run > program) return from >= program && from < run ? options.dtype : type;
  return from > run ? options.dtype : type;
}

std::vector<c10::IValue> Program::Impl::graph_inputs(const std::vector<at::Tensor>& user_inputs) const {
  std::vector<c10::IValue> values;
  values.reserve(feeds.size());
  for (const Feed& feed : feeds) {
    switch (feed.kind) {
      case Feed::Kind::kParameter: values.emplace_back(leaves[feed.index]); break;
      case Feed::Kind::kTensor: values.emplace_back(tensors[feed.index].tensor); break;
      case Feed::Kind::kUserInput: values.emplace_back(user_inputs.at(feed.index)); break;
      case Feed::Kind::kUnused: values.emplace_back(); break;
    }
  }
  return values;
}

Program::Program(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Program::~Program() = default;
Program::Program(Program&&) noexcept = default;
Program& Program::operator=(Program&&) noexcept = default;

Program Program::load(const std::filesystem::path& path, const ProgramOptions& options) {
  set_backends();
  at::NoGradGuard no_grad;
  try {
    return Program(Loader(path, options).run());
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {  // LibTorch's own complaint about something the file says
    throw InputError("model " + path.string() + ": is broken (" + first_line(e) + ")");
  }
}

const ProgramOptions& Program::options() const { return impl_->options; }
const ParameterLayout& Program::layout() const { return impl_->layout; }
const std::vector<InputSpec>& Program::inputs() const { return impl_->inputs; }
const std::vector<OutputSpec>& Program::outputs() const { return impl_->outputs; }
std::vector<OpCount> Program::op_counts() const { return impl_->ops; }
const std::string& Program::torch_version() const { return impl_->torch_version; }
at::Tensor& Program::flat_parameters() { return impl_->flat; }
const std::vector<at::Tensor>& Program::parameters() const { return impl_->leaves; }

std::optional<std::int64_t> Program::static_batch() const {
  for (const InputSpec& input : impl_->inputs)
    if (!input.shape.empty() && input.shape[0].is_static()) return input.shape[0].size;
  return std::nullopt;
}

std::int64_t Program::buffer_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& tensor : impl_->tensors) bytes += static_cast<std::int64_t>(tensor.tensor.nbytes());
  return bytes;
}

OverlayReport Program::overlay(const Checkpoint& checkpoint) {
  at::NoGradGuard no_grad;
  std::vector<OverlayTarget> targets;
  const std::vector<at::Tensor> views = impl_->layout.views(impl_->flat);
  for (std::size_t i = 0; i < views.size(); ++i) {
    const ParameterEntry& entry = impl_->layout.entries()[i];
    targets.push_back({entry.name, entry.aliases, views[i], true, true});
  }
  for (const auto& tensor : impl_->tensors)
    if (tensor.persistent) targets.push_back({tensor.name, tensor.aliases, tensor.tensor, true, tensor.is_parameter});
  return hesspect::overlay(checkpoint, targets);
}

void Program::check_finite() const {
  // A buffer may hold infinities: attention masks do.
  const auto check = [&](const std::string& kind, const std::string& name, const at::Tensor& tensor,
                         bool is_parameter) {
    if (!at::isFloatingType(tensor.scalar_type())) return;
    const at::Tensor finite = is_parameter ? at::isfinite(tensor) : at::isnan(tensor).logical_not();
    if (finite.all().item<bool>()) return;
    const std::int64_t bad = tensor.numel() - finite.sum().item<std::int64_t>();
    throw InputError(impl_->where + kind + " '" + name + "' holds " + format_count(bad) + " non-finite value" +
                     (bad == 1 ? "" : "s") + " (NaN or infinity) of " + format_count(tensor.numel()));
  };
  for (std::size_t i = 0; i < impl_->leaves.size(); ++i)
    check("parameter", impl_->layout.entries()[i].name, impl_->leaves[i].detach(), true);
  for (const auto& tensor : impl_->tensors)
    if (tensor.persistent)
      check(tensor.is_parameter ? "parameter" : "buffer", tensor.name, tensor.tensor, tensor.is_parameter);
}

std::vector<at::Tensor> Program::run(const std::vector<at::Tensor>& inputs) const {
  DefaultDtypeScope default_dtype(impl_->map_dtype(at::kFloat));
  std::vector<c10::IValue> values = execute(impl_->graph, impl_->graph_inputs(inputs), impl_->where);
  std::vector<at::Tensor> outputs;
  outputs.reserve(impl_->outputs.size());
  for (std::size_t i = 0; i < impl_->outputs.size(); ++i)
    outputs.push_back(values[i].isTensor() ? values[i].toTensor() : at::Tensor());
  return outputs;
}

std::vector<at::Tensor> Program::example_inputs(std::int64_t rows) const {
  std::map<std::string, std::int64_t> symbols;
  std::vector<at::Tensor> inputs;
  for (const InputSpec& spec : impl_->inputs) {
    std::vector<std::int64_t> shape;
    for (std::size_t d = 0; d < spec.shape.size(); ++d) {
      const Dimension& dimension = spec.shape[d];
      std::int64_t size = dimension.size;
      if (!dimension.is_static()) {
        size = std::max<std::int64_t>(dimension.min, d == 0 ? rows : 2);
        if (dimension.max >= 0) size = std::min(size, dimension.max);
        size = symbols.emplace(dimension.symbol, size).first->second;
      }
      shape.push_back(size);
    }
    const auto options = at::TensorOptions().dtype(impl_->map_dtype(spec.dtype)).device(impl_->options.device);
    if (at::isFloatingType(spec.dtype)) {
      std::int64_t numel = 1;
      for (const std::int64_t size : shape)
        if (__builtin_mul_overflow(numel, size, &numel))
          throw InputError(impl_->where + "input '" + spec.name + "' of shape " + format_shape(shape) +
                           " is larger than any memory");
      inputs.push_back(at::sin(at::arange(1, numel + 1, options)).reshape(shape));
    } else {
      inputs.push_back(spec.dtype == at::kBool ? at::ones(shape, options) : at::zeros(shape, options));
    }
  }
  return inputs;
}

std::vector<at::Tensor> Program::prepare_inputs(const std::vector<at::Tensor>& inputs) const {
  if (inputs.size() != impl_->inputs.size())
    throw InputError(impl_->where + "takes " + std::to_string(impl_->inputs.size()) + " inputs, but " +
                     std::to_string(inputs.size()) + " were given");
  std::map<std::string, std::pair<std::int64_t, std::string>> bound;  // symbol -> size, input that set it
  std::vector<at::Tensor> prepared;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const InputSpec& spec = impl_->inputs[i];
    const at::Tensor& given = inputs[i];
    const auto fail = [&](const std::string& why) -> InputError {
      return InputError(impl_->where + "input '" + spec.name + "': the data have shape " +
                        format_shape(given.sizes().vec()) + " of " + std::string(c10::toString(given.scalar_type())) +
                        ", expected " + describe_shape(spec.shape) + " of " + std::string(c10::toString(spec.dtype)) +
                        why);
    };
    if (given.dim() != static_cast<std::int64_t>(spec.shape.size())) throw fail(" (another number of dimensions)");
    for (std::int64_t d = 0; d < given.dim(); ++d) {
      const Dimension& dimension = spec.shape[static_cast<std::size_t>(d)];
      if (dimension.is_static()) {
        if (given.size(d) != dimension.size) throw fail(" (dimension " + std::to_string(d) + ")");
        continue;
      }
      if (dimension.max >= 0 && given.size(d) > dimension.max)
        throw fail(" (dimension " + std::to_string(d) + " is at most " + std::to_string(dimension.max) + ")");
      const auto [it, fresh] = bound.emplace(dimension.symbol, std::make_pair(given.size(d), spec.name));
      if (!fresh && it->second.first != given.size(d))
        throw fail(" (" + dimension.symbol + " is " + std::to_string(it->second.first) + " in input '" +
                   it->second.second + "')");
    }
    const bool wants_floating = at::isFloatingType(spec.dtype), is_floating = at::isFloatingType(given.scalar_type());
    const bool wants_bool = spec.dtype == at::kBool, is_bool = given.scalar_type() == at::kBool;
    if ((is_floating && !wants_floating) || (wants_bool && !is_bool)) throw fail(" (another dtype)");
    const at::ScalarType type = wants_floating ? impl_->map_dtype(spec.dtype) : spec.dtype;
    const at::Tensor converted = given.to(type);
    if (!wants_floating && given.scalar_type() != type && !converted.to(given.scalar_type()).equal(given))
      throw fail(" (a value does not fit the input's dtype)");
    prepared.push_back(converted.to(impl_->options.device));
  }
  return prepared;
}

}  // namespace hesspect
