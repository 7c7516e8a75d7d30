#include "hesspect/model/program.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/DefaultDtype.h>

#include <algorithm>
#include <set>

#include "archive.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"
#include "hesspect/core/text.h"
#include "hesspect/model/executor.h"
#include "node_steps.h"
#include "program_impl.h"
#include "signature.h"
#include "weight_ties.h"

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

/// Bits of precision that order the floating types, and the complex ones by their parts.
int precision(at::ScalarType type) {
  switch (c10::toRealValueType(type)) {
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

/// The sizes that the rows' dimension of every input allows.
std::vector<Dimension> row_dimensions(const std::vector<InputSpec>& inputs) {
  std::vector<Dimension> rows;
  for (const InputSpec& input : inputs)
    if (!input.shape.empty()) rows.push_back(input.shape[static_cast<std::size_t>(input.batch_dim)]);
  return rows;
}

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
      find_batch_dims(impl_->inputs, impl_->outputs);
      find_narrowest_type(module.at("graph"));
    } catch (const json::exception& e) {
      throw InputError(impl_->where + "its graph is broken (" + e.what() + ")");
    }
    make_leaves();
    return std::move(impl_);
  }

 private:
  using Feed = Program::Impl::Feed;

  /// The dtype that most parameters have is the program's own.
  void find_program_dtype(const json& signature) {
    std::map<at::ScalarType, std::int64_t> elements;
    for (const json& spec : signature.at("input_specs")) {
      if (!spec.contains("parameter")) continue;
      const auto found = archive_.weights().find(spec["parameter"].at("parameter_name").get<std::string>());
      if (found == archive_.weights().end() || precision(found->second.dtype) == 0) continue;
      std::int64_t numel = 1;
      for (const std::int64_t size : found->second.sizes) numel *= std::max<std::int64_t>(size, 0);
      elements[c10::toRealValueType(found->second.dtype)] += numel;
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
    if (archive_.lacks_data()) used_ = names_used(graph);
    for (const json& spec : specs) {
      if (spec.contains("parameter")) {
        const json& item = spec["parameter"];
        impl_->feeds.push_back(add_parameter(item.at("parameter_name").get<std::string>(), external_name(item)));
      } else if (spec.contains("buffer")) {
        const json& item = spec["buffer"];
        const bool persistent = item.value("persistent", true);
        impl_->feeds.push_back(
            add_tensor(item.at("buffer_name").get<std::string>(), external_name(item), persistent, false));
      } else if (spec.contains("tensor_constant")) {
        const json& item = spec["tensor_constant"];
        impl_->feeds.push_back(
            add_tensor(item.at("tensor_constant_name").get<std::string>(), external_name(item), false, false));
      } else if (spec.contains("user_input")) {
        impl_->feeds.push_back(add_user_input(spec["user_input"].at("arg"), graph));
      } else if (spec.contains("constant_input") || spec.contains("token")) {
        impl_->feeds.push_back(Feed{});
      } else {
        throw InputError(impl_->where + "takes an input that cannot be run: " + spec.dump().substr(0, 100));
      }
    }
  }

  /// The name in the graph of something that the program must not write to.
  std::string external_name(const json& item) {
    return *external_.insert(item.at("arg").at("name").get<std::string>()).first;
  }

  bool is_used(const ArchivedTensor& archived, const std::string& arg) const {
    return archived.has_data || used_.contains(arg);
  }

  /// @param arg  its name in the graph
  Feed add_parameter(const std::string& name, const std::string& arg) {
    const auto found = archive_.weights().find(name);
    if (found == archive_.weights().end())
      throw InputError(impl_->where + "holds no weight for the parameter '" + name + "'");
    const ArchivedTensor& archived = found->second;
    if (!archived.requires_grad || precision(archived.dtype) == 0) return add_tensor(name, arg, true, true);
    // Tied weights: several names of one record, shape and strides are one parameter.
    for (std::size_t i = 0; i < tied_.size(); ++i) {
      if (!share_data(archived, *tied_[i].archived)) continue;
      if (!have_one_view(archived, *tied_[i].archived))
        throw InputError(impl_->where + "the parameters '" + tied_[i].name + "' and '" + name +
                         "' are different views of one weight, which cannot be counted once");
      tied_[i].aliases.push_back(name);
      return {Feed::Kind::kParameter, i, i};
    }
    tied_.push_back({&archived, name, {}, is_used(archived, arg)});
    return {Feed::Kind::kParameter, tied_.size() - 1, tied_.size() - 1};
  }

  /// Whether they begin at the same place of the same record.
  static bool share_data(const ArchivedTensor& a, const ArchivedTensor& b) {
    const bool is_empty = std::find(a.sizes.begin(), a.sizes.end(), 0) != a.sizes.end();
    return !is_empty && a.has_data && b.has_data && a.record == b.record && a.storage_offset == b.storage_offset;
  }

  static bool have_one_view(const ArchivedTensor& a, const ArchivedTensor& b) {
    return a.sizes == b.sizes && a.strides == b.strides;
  }

  Feed add_tensor(const std::string& name, const std::string& arg, bool persistent, bool is_parameter) {
    const ArchivedTensor* archived = nullptr;
    for (const auto* table : {&archive_.weights(), &archive_.constants()}) {
      const auto found = table->find(name);
      if (found != table->end() && archived == nullptr) archived = &found->second;
    }
    if (archived == nullptr) throw InputError(impl_->where + "holds no data for the buffer or constant '" + name + "'");
    for (std::size_t i = 0; i < impl_->tensors.size(); ++i) {
      if (!share_data(*archived, *frozen_[i]) || !have_one_view(*archived, *frozen_[i])) continue;
      impl_->tensors[i].aliases.push_back(name);
      return {Feed::Kind::kTensor, i};
    }
    frozen_.push_back(archived);
    const auto options = at::TensorOptions().dtype(impl_->map_dtype(archived->dtype)).device(impl_->options.device);
    at::Tensor tensor = at::empty(archived->sizes, options.device(at::kMeta));
    if (archived->has_data) {
      tensor = archive_.read(name, *archived);
      take(name, tensor);
      tensor = tensor.to(options, false, /*copy=*/true);
    }
    impl_->tensors.push_back({name, {}, tensor, persistent, is_parameter, archived->has_data, is_used(*archived, arg)});
    return {Feed::Kind::kTensor, impl_->tensors.size() - 1};
  }

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

  Feed add_user_input(const json& argument, const json& graph) {
    if (!argument.contains("as_tensor")) {
      if (argument.contains("as_sym_int") || argument.contains("as_sym_float"))
        throw InputError(impl_->where + "takes a dynamic number as an input (" + argument.dump().substr(0, 80) +
                         "); only tensors can come from the data, so export it as a constant");
      return {};  // a constant, None or string: baked into the graph
    }
    InputSpec spec;
    spec.name = argument["as_tensor"].at("name").get<std::string>();
    external_.insert(spec.name);
    read_meta(graph, spec);
    impl_->inputs.push_back(std::move(spec));
    return {Feed::Kind::kUserInput, impl_->inputs.size() - 1};
  }

  /// The parts of an output of the signature, {"user_output": {…}}.
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
    const std::vector<std::string> paths = output_paths(module);
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
      if (paths.size() == specs.size()) spec.path = paths[i];
      impl_->outputs.push_back(std::move(spec));
    }
  }

  void find_narrowest_type(const json& graph) {
    impl_->narrowest = impl_->options.dtype;
    for (const json& meta : graph.at("tensor_values")) {
      const std::int64_t code = type_code_of(meta);
      const at::ScalarType stored = code == 6 ? at::kHalf : code == 13 ? at::kBFloat16 : at::kDouble;
      const at::ScalarType type = impl_->map_dtype(stored);
      if (precision(type) < precision(impl_->narrowest)) impl_->narrowest = type;
    }
  }

  void make_leaves() {
    for (const Tied& tied : tied_) {
      ParameterEntry entry;
      entry.name = tied.name;
      entry.aliases = tied.aliases;
      entry.shape = tied.archived->sizes;
      entry.stored_dtype = tied.archived->dtype;
      if (entry.is_complex()) entry.shape.push_back(2);
      entry.numel = 1;
      for (const std::int64_t size : entry.shape)
        if (size < 0 || __builtin_mul_overflow(entry.numel, size, &entry.numel))
          throw InputError(impl_->where + "the parameter '" + entry.name + "' of shape " + format_shape(entry.shape) +
                           " is larger than any memory");
      const bool has_data = tied.archived->has_data;
      at::Tensor value = has_data ? as_reals(archive_.read(tied.name, *tied.archived)) : at::Tensor();
      impl_->stored.push_back({std::move(entry), std::move(value), has_data, tied.is_used});
    }
    if (tied_.empty())
      throw InputError(impl_->where + "has no trainable parameters (exported with requires_grad = False?)");
    for (const auto& stored : impl_->stored)
      if (stored.has_data) take(stored.entry.name, stored.value);
    impl_->has_weights = !archive_.lacks_data();
    impl_->lay_out(likely_owners(impl_->stored), impl_->has_weights && impl_->options.lay_out);
  }

  /// Counts what a tensor will take in memory. Strides of 0 make much of little data: no model that people export has
  /// tensors of many times its file, and a damaged one must not take all there is.
  void take(const std::string& name, const at::Tensor& tensor) {
    taken_bytes_ += tensor.numel() * tensor.element_size();
    if (taken_bytes_ > archive_.most_bytes())
      throw InputError(
          impl_->where + "tensor '" + name + "' of shape " + format_shape(tensor.sizes().vec()) +
          " repeats its few stored elements to more than ten times the file; make it contiguous() before the export");
  }

  Pt2Archive archive_;
  std::int64_t taken_bytes_ = 0;
  std::unique_ptr<Program::Impl> impl_;
  std::set<std::string> external_;
  std::set<std::string> used_;  // names that the graph's nodes and outputs use; only where data lack
  struct Tied {
    const ArchivedTensor* archived;
    std::string name;
    std::vector<std::string> aliases;
    bool is_used;  // by the graph
  };
  std::vector<Tied> tied_;
  std::vector<const ArchivedTensor*> frozen_;  // where impl_->tensors[i] come from
};

}  // namespace

at::Tensor as_reals(const at::Tensor& tensor) { return tensor.is_complex() ? at::view_as_real(tensor) : tensor; }

at::Tensor as_complex(const at::Tensor& pairs) { return at::complex(pairs.select(-1, 0), pairs.select(-1, 1)); }

at::ScalarType Program::Impl::map_dtype(at::ScalarType type) const {
  const int from = precision(type), program = precision(program_dtype), run = precision(options.dtype);
  if (from == 0 || run == program) return type;  // as exported
  const at::ScalarType run_type = c10::isComplexType(type) ? c10::toComplexType(options.dtype) : options.dtype;
  if (run > program) return from >= program && from < run ? run_type : type;
  return from > run ? run_type : type;
}

std::vector<c10::IValue> Program::Impl::graph_inputs(const std::vector<at::Tensor>& user_inputs) const {
  std::vector<c10::IValue> values;
  values.reserve(feeds.size());
  for (const Feed& feed : feeds) {
    switch (feed.kind) {
      case Feed::Kind::kParameter: {
        const at::Tensor& leaf = leaves[feed.index];
        values.emplace_back(layout.entries()[feed.index].is_complex() ? as_complex(leaf) : leaf);
        break;
      }
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
  } catch (const InputError& e) {
    throw InputError(one_line(e.what()));  // names come out of the file
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
at::ScalarType Program::narrowest_type() const { return impl_->narrowest; }
const std::string& Program::torch_version() const { return impl_->torch_version; }
at::Tensor& Program::flat_parameters() { return impl_->flat; }
const std::vector<at::Tensor>& Program::parameters() const { return impl_->leaves; }

std::size_t Program::output_named(const std::string& name) const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < impl_->outputs.size(); ++i) {
    const OutputSpec& output = impl_->outputs[i];
    if (output.name == name || (!output.path.empty() && output.path == name)) return i;
    names.push_back(output.path.empty() ? output.name : output.path);
  }
  throw UsageError("the model has no output " + quote(name) + did_you_mean(name, names) + "; its outputs are " +
                   format_names(names));
}

std::optional<std::int64_t> Program::static_batch() const {
  for (const Dimension& rows : row_dimensions(impl_->inputs))
    if (rows.is_static()) return rows.size;
  return std::nullopt;
}

std::int64_t Program::fewest_rows() const {
  std::int64_t fewest = 1;
  for (const Dimension& rows : row_dimensions(impl_->inputs)) fewest = std::max(fewest, rows.min);
  return fewest;
}

std::optional<std::int64_t> Program::most_rows() const {
  std::optional<std::int64_t> most;
  for (const Dimension& rows : row_dimensions(impl_->inputs))
    if (rows.max > 0) most = std::min(most.value_or(rows.max), rows.max);
  return most;
}

std::int64_t Program::buffer_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& tensor : impl_->tensors)
    if (!tensor.fixed) bytes += static_cast<std::int64_t>(tensor.tensor.nbytes());
  return bytes;
}

std::vector<at::Tensor> Program::run(const std::vector<at::Tensor>& inputs) const {
  return impl_->runner ? impl_->runner(inputs) : run_here(inputs);
}

std::vector<at::Tensor> Program::run_here(const std::vector<at::Tensor>& inputs) const {
  DefaultDtypeScope default_dtype(impl_->map_dtype(at::kFloat));
  std::vector<c10::IValue> values = impl_->graph_inputs(inputs);
  values = impl_->record != nullptr ? impl_->record->record(impl_->graph, std::move(values))
                                    : execute(impl_->graph, std::move(values), impl_->where);
  std::vector<at::Tensor> outputs;
  outputs.reserve(impl_->outputs.size());
  for (std::size_t i = 0; i < impl_->outputs.size(); ++i)
    outputs.push_back(values[i].isTensor() ? values[i].toTensor() : at::Tensor());
  return outputs;
}

const Graph& Program::graph() const { return impl_->graph; }
const std::string& Program::where() const { return impl_->where; }
at::ScalarType Program::default_dtype() const { return impl_->map_dtype(at::kFloat); }

std::vector<c10::IValue> Program::graph_inputs(const std::vector<at::Tensor>& inputs) const {
  return impl_->graph_inputs(inputs);
}

std::vector<std::optional<std::size_t>> Program::parameter_inputs() const {
  std::vector<std::optional<std::size_t>> parameters;
  for (const auto& feed : impl_->feeds)
    parameters.push_back(feed.kind == Impl::Feed::Kind::kParameter ? std::optional(feed.index) : std::nullopt);
  return parameters;
}

std::vector<std::optional<std::size_t>> Program::brought_inputs() const {
  std::vector<std::optional<std::size_t>> brought = parameter_inputs();
  for (std::size_t i = 0; i < brought.size(); ++i) {
    const Impl::Feed& feed = impl_->feeds[i];
    if (feed.kind != Impl::Feed::Kind::kTensor || !impl_->tensors[feed.index].fixed) continue;
    brought[i] = impl_->layout.entries().size() + *impl_->tensors[feed.index].fixed;
  }
  return brought;
}

std::size_t Program::brought_count() const { return impl_->layout.entries().size() + impl_->fixed.size(); }

const ParameterEntry& Program::brought(std::size_t parameter) const {
  const std::vector<ParameterEntry>& entries = impl_->layout.entries();
  return parameter < entries.size() ? entries[parameter] : impl_->fixed.at(parameter - entries.size());
}

std::vector<at::Tensor> Program::prepare_inputs(const std::vector<at::Tensor>& inputs) const {
  if (inputs.size() != impl_->inputs.size())
    throw InputError(impl_->where + "takes " + std::to_string(impl_->inputs.size()) + " inputs, but " +
                     std::to_string(inputs.size()) + " were given");
  std::map<std::string, std::pair<std::int64_t, std::string>> bound;  // symbol -> size, input that set it
  std::vector<at::Tensor> prepared;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const InputSpec& spec = impl_->inputs[i];
    if (inputs[i].dim() <= spec.batch_dim && !spec.shape.empty())
      throw InputError(impl_->where + "input '" + spec.name + "': the data have shape " +
                       format_shape(inputs[i].sizes().vec()) + ", and no dimension " + std::to_string(spec.batch_dim) +
                       " for the rows");
    const at::Tensor given = inputs[i].movedim(0, spec.batch_dim);
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
    const bool wants_floating = precision(spec.dtype) > 0, is_floating = precision(given.scalar_type()) > 0;
    if (given.is_complex() && !c10::isComplexType(spec.dtype)) throw fail(" (complex numbers for a real input)");
    const bool wants_bool = spec.dtype == at::kBool, is_bool = given.scalar_type() == at::kBool;
    if ((is_floating && !wants_floating) || (wants_bool && !is_bool)) throw fail(" (another dtype)");
    const at::ScalarType type = wants_floating ? impl_->map_dtype(spec.dtype) : spec.dtype;
    const at::Tensor converted = given.to(type);
    if (!wants_floating && given.scalar_type() != type && !converted.to(given.scalar_type()).equal(given))
      throw fail(" (a value does not fit the input's dtype)");
    prepared.push_back(converted.to(impl_->options.device).contiguous());
  }
  return prepared;
}

}  // namespace hesspect
