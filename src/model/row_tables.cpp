#include "row_tables.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <map>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/model/executor.h"
#include "hesspect/model/rows_in_use.h"

namespace hesspect {
namespace {

using c10::IValue;

/// An op that looks rows up: its table is the first operand.
struct LookUpOp {
  std::size_t index = 1;
  bool in_list = false, from_end = false;
  std::optional<std::size_t> padding = {}, dim = {};  // the operands that say so
  std::optional<std::size_t> no_padding = {};         // the operand that must name none
  bool first_output_alone = false;                    // its others tell of rows
};

const LookUpOp* look_up_op(const Instruction& instruction) {
  static const std::map<std::string, LookUpOp> ops = {
      {"aten::embedding", {.padding = 2}},
      {"aten::embedding_bag", {.no_padding = 8, .first_output_alone = true}},
      {"aten::_embedding_bag", {.no_padding = 8, .first_output_alone = true}},
      {"aten::_embedding_bag_forward_only", {.no_padding = 8, .first_output_alone = true}},
      {"aten::index_select", {.index = 2, .dim = 1}},
      {"aten::gather", {.index = 2, .dim = 1}},
      {"aten::index", {.in_list = true, .from_end = true}},
  };
  const bool is_op =
      instruction.kind == Instruction::Kind::kDispatch || instruction.kind == Instruction::Kind::kRewritten;
  if (!is_op || !instruction.op) return nullptr;
  const std::string &name = instruction.op->schema().name(), &overload = instruction.op->schema().overload_name();
  const auto found = ops.find(name);
  if (found == ops.end() || (name == "aten::index" && overload != "Tensor")) return nullptr;
  return overload.find("out") == std::string::npos && overload != "dimname" ? &found->second : nullptr;
}

bool is_constant_int(const Instruction& instruction, std::size_t operand) {
  return operand < instruction.operands.size() && instruction.operands[operand].kind == Operand::Kind::kConstant &&
         instruction.operands[operand].constant.isInt();
}

class Analysis {
 public:
  explicit Analysis(const Program::Impl& impl) : impl_(impl), graph_(impl.graph), read_(slots_read(graph_)) {
    for (std::size_t i = 0; i < impl.feeds.size(); ++i) {
      const Program::Impl::Feed& feed = impl.feeds[i];
      if (feed.kind == Program::Impl::Feed::Kind::kParameter) tables_[graph_.inputs[i]] = feed.stored;
      if (feed.kind == Program::Impl::Feed::Kind::kTensor && !impl.tensors[feed.index].has_data)
        lacking_.insert(graph_.inputs[i]);
    }
    for (std::size_t i = 0; i < graph_.instructions.size(); ++i) {
      for (const int slot : graph_.instructions[i].outputs)
        if (slot >= 0) maker_[slot] = i;
      note_writes(graph_.instructions[i]);
    }
  }

  std::vector<TableReads> run() const {
    std::vector<TableReads> reads(impl_.stored.size());
    for (std::size_t i = 0; i < graph_.instructions.size(); ++i) {
      const Instruction& instruction = graph_.instructions[i];
      for (std::size_t k = 0; k < instruction.operands.size(); ++k)
        for_each_slot(instruction.operands[k], [&](int slot) {
          const auto table = tables_.find(slot);
          if (table == tables_.end()) return;
          TableReads& of_table = reads[table->second];
          const std::optional<LookUp> look_up = k == 0 ? look_up_at(i) : std::nullopt;
          if (look_up)
            of_table.look_ups.push_back(*look_up);
          else
            of_table.otherwise = true;
        });
    }
    for (const Operand& output : graph_.outputs)
      for_each_slot(output, [&](int slot) {
        if (const auto table = tables_.find(slot); table != tables_.end()) reads[table->second].otherwise = true;
      });
    for (std::size_t s = 0; s < reads.size(); ++s) {
      const ParameterEntry& entry = impl_.stored[s].entry;
      if (entry.is_complex() || entry.numel == 0 || entry.shape.empty()) reads[s].otherwise = true;
    }
    return reads;
  }

 private:
  void note_writes(const Instruction& instruction) {
    for (std::size_t k = 0; k < instruction.operands.size() && k < instruction.writes.size(); ++k)
      if (instruction.writes[k])
        for_each_slot(instruction.operands[k], [&](int slot) { (is_continuous(slot) ? floats_ : integers_) = true; });
    if (!instruction.subgraph) return;
    for (const Instruction& inner : instruction.subgraph->instructions)
      if (std::ranges::any_of(inner.writes, [](bool writes) { return writes; })) floats_ = integers_ = true;
  }

  bool is_continuous(int slot) const { return graph_.continuous.at(static_cast<std::size_t>(slot)); }

  std::optional<LookUp> look_up_at(std::size_t i) const {
    const Instruction& instruction = graph_.instructions[i];
    const LookUpOp* op = look_up_op(instruction);
    if (op == nullptr || op->index >= instruction.operands.size()) return std::nullopt;
    if (op->dim && !(is_constant_int(instruction, *op->dim) && instruction.operands[*op->dim].constant.toInt() == 0))
      return std::nullopt;
    LookUp look_up{i, op->index, op->in_list, op->from_end, {}, {}};
    if (op->padding && *op->padding < instruction.operands.size()) {
      if (!is_constant_int(instruction, *op->padding)) return std::nullopt;
      look_up.padding = op->padding;
    }
    if (op->no_padding && *op->no_padding < instruction.operands.size()) {
      const Operand& padding = instruction.operands[*op->no_padding];
      const bool is_none = padding.kind == Operand::Kind::kConstant &&
                           (padding.constant.isNone() || (padding.constant.isInt() && padding.constant.toInt() == -1 &&
                                                          instruction.op->schema().name() != "aten::embedding_bag"));
      if (!is_none) return std::nullopt;
    }
    for (std::size_t o = 1; op->first_output_alone && o < instruction.outputs.size(); ++o)
      if (read_.contains(instruction.outputs[o])) return std::nullopt;
    if (op->in_list && instruction.operands[op->index].items.empty()) return std::nullopt;
    const Operand& index = index_of(graph_, look_up);
    if (index.kind != Operand::Kind::kSlot || !add_makers(index.slot, look_up.makers)) return std::nullopt;
    return look_up;
  }

  /// @return whether the value depends on no parameter, and on nothing that is written to in place
  bool add_makers(int slot, std::set<std::size_t>& makers) const {
    if (tables_.contains(slot) || lacking_.contains(slot)) return false;
    // A write may be to a view of the value: where any is of its kind, this can't be told.
    if (integers_ || (floats_ && is_continuous(slot))) return false;
    const auto maker = maker_.find(slot);
    if (maker == maker_.end() || !makers.insert(maker->second).second) return true;
    bool is_free = true;
    for (const Operand& operand : graph_.instructions[maker->second].operands)
      for_each_slot(operand, [&](int from) { is_free = is_free && add_makers(from, makers); });
    return is_free;
  }

  const Program::Impl& impl_;
  const Graph& graph_;
  std::set<int> read_;
  std::map<int, std::size_t> tables_;       // slots that are parameters -> impl.stored
  std::set<int> lacking_;                   // slots of buffers without data
  std::map<int, std::size_t> maker_;        // slot -> instruction
  bool integers_ = false, floats_ = false;  // values of the kind are written to in place
};

// --- where rows are held --------------------------------------------------------------------------------------------

/// (index, rows held [U], rows of the table, whether negative ones count from its end, its name) -> where they are
/// held. What is no row of the table at all stays, for the op to refuse it.
IValue held_at(std::span<const IValue> arguments) {
  const at::NoGradGuard no_grad;
  const at::Tensor index = arguments[0].toTensor(), rows = arguments[1].toTensor();
  const std::int64_t all = arguments[2].toInt();
  at::Tensor wanted = index.to(at::kLong).contiguous();
  if (arguments[3].toBool()) wanted = at::where(wanted < 0, wanted + all, wanted);
  const at::Tensor at = at::searchsorted(rows, wanted).clamp_max_(rows.size(0) - 1);
  const at::Tensor found = rows.take(at) == wanted;
  if (found.all().item<bool>()) return at.to(index.scalar_type());
  const at::Tensor lost = found.logical_not().logical_and_(wanted >= 0).logical_and_(wanted < all);
  if (lost.any().item<bool>())
    throw InputError("looks up row " + std::to_string(wanted.masked_select(lost)[0].item<std::int64_t>()) + " of '" +
                     arguments[4].toStringRef() +
                     "', which no row of the run's data was found to use: --rows-in-use off keeps all rows");
  return at::where(found, at, wanted).to(index.scalar_type());
}

Operand constant_operand(IValue value) {
  Operand operand;
  operand.constant = std::move(value);
  return operand;
}

}  // namespace

Operand& index_of(Graph& graph, const LookUp& look_up) {
  Operand& operand = graph.instructions[look_up.instruction].operands[look_up.operand];
  return look_up.in_list ? operand.items.front() : operand;
}

const Operand& index_of(const Graph& graph, const LookUp& look_up) {
  const Operand& operand = graph.instructions[look_up.instruction].operands[look_up.operand];
  return look_up.in_list ? operand.items.front() : operand;
}

std::vector<TableReads> table_reads(const Program::Impl& impl) { return Analysis(impl).run(); }

void look_up_held_rows(Program::Impl& impl) {
  Graph& graph = impl.graph;
  std::multimap<std::size_t, Instruction> before;  // by the instruction that they go before
  const std::vector<TableReads> reads = table_reads(impl);
  for (std::size_t s = 0; s < reads.size(); ++s) {
    const auto& owner = impl.stored[impl.owners[s]];
    if (!owner.rows) continue;
    const at::Tensor rows = at::tensor(*owner.rows, at::TensorOptions().dtype(at::kLong)).to(impl.options.device);
    for (const LookUp& look_up : reads[s].look_ups) {
      Instruction& user = graph.instructions[look_up.instruction];
      Operand& index = index_of(graph, look_up);
      Instruction place;
      place.kind = Instruction::Kind::kSymbolic;
      place.symbolic = {5, held_at};
      place.operands = {index, constant_operand(rows), constant_operand(owner.entry.shape.front()),
                        constant_operand(look_up.from_end), constant_operand(owner.entry.name)};
      place.writes.resize(place.operands.size(), false);
      place.outputs = {graph.slots};
      place.origin = user.origin;
      index = slot_operand(graph.slots++);
      graph.continuous.push_back(false);
      user.dead.push_back(index.slot);
      if (look_up.padding) {
        IValue& padding = user.operands[*look_up.padding].constant;
        const auto found = std::lower_bound(owner.rows->begin(), owner.rows->end(), padding.toInt());
        const bool is_held = found != owner.rows->end() && *found == padding.toInt();
        padding = is_held ? found - owner.rows->begin() : std::int64_t{-1};
      }
      before.emplace(look_up.instruction, std::move(place));
    }
  }
  std::vector<Instruction> all;
  for (std::size_t i = 0; i < graph.instructions.size(); ++i) {
    const auto [first, last] = before.equal_range(i);
    for (auto place = first; place != last; ++place) all.push_back(std::move(place->second));
    all.push_back(std::move(graph.instructions[i]));
  }
  graph.instructions = std::move(all);
}

// --- marks ----------------------------------------------------------------------------------------------------------

struct RowMarks::Impl {
  const Program::Impl& program;
  std::vector<RowTable> tables;
  std::vector<std::shared_ptr<const std::vector<std::int64_t>>> held;  // of each: rows that indices count, if not all
  std::vector<std::vector<LookUp>> look_ups;                           // of each
  std::vector<std::vector<std::uint64_t>> bits;                        // of each: a bit for every row
  std::vector<bool> whole;
  std::set<std::size_t> makers;  // of all indices
  std::vector<bool> inputs;

  explicit Impl(const Program::Impl& of_program) : program(of_program), inputs(of_program.inputs.size(), false) {
    std::vector<TableReads> reads = table_reads(program);
    for (std::size_t s = 0; s < reads.size(); ++s) {
      if (!reads[s].only_looked_up()) continue;
      const ParameterEntry& entry = program.stored[s].entry;
      const std::size_t owner = program.owners[s];
      bool alone = true;
      for (std::size_t i = 0; i < reads.size(); ++i)
        alone = alone && (program.owners[i] != owner || !reads[i].otherwise);
      tables.push_back({entry.name, entry.shape.front(), entry.numel / entry.shape.front(),
                        program.stored[owner].entry.name, alone});
      held.push_back(program.stored[owner].rows);
      look_ups.push_back(std::move(reads[s].look_ups));
      bits.emplace_back(static_cast<std::size_t>((entry.shape.front() + 63) / 64));
      for (const LookUp& look_up : look_ups.back()) makers.insert(look_up.makers.begin(), look_up.makers.end());
    }
    whole.resize(tables.size(), false);
    find_inputs();
  }

  void find_inputs() {
    std::set<int> read;
    for (const std::size_t i : makers)
      for (const Operand& operand : program.graph.instructions[i].operands)
        for_each_slot(operand, [&](int slot) { read.insert(slot); });
    for (const auto& of_table : look_ups)
      for (const LookUp& look_up : of_table) read.insert(index_of(program.graph, look_up).slot);
    for (std::size_t i = 0; i < program.feeds.size(); ++i)
      if (program.feeds[i].kind == Program::Impl::Feed::Kind::kUserInput && read.contains(program.graph.inputs[i]))
        inputs[program.feeds[i].index] = true;
  }

  /// What the graph's inputs are, as far as they are needed.
  Frame first(const std::vector<at::Tensor>& given) const {
    std::vector<IValue> values(program.feeds.size());
    for (std::size_t i = 0; i < program.feeds.size(); ++i) {
      const auto& feed = program.feeds[i];
      if (feed.kind == Program::Impl::Feed::Kind::kTensor) values[i] = program.tensors[feed.index].tensor;
      if (feed.kind != Program::Impl::Feed::Kind::kUserInput || !inputs[feed.index]) continue;
      const InputSpec& spec = program.inputs[feed.index];
      const at::ScalarType type = program.map_dtype(spec.dtype);
      values[i] = given.at(feed.index).movedim(0, spec.batch_dim).to(program.options.device, type).contiguous();
    }
    return first_frame(program.graph, std::move(values));
  }

  /// The indices, by slot, in a frame; what can't be made is None there.
  Frame indices(const std::vector<at::Tensor>& given) const {
    Frame frame = first(given);
    for (const std::size_t i : makers) {
      const Instruction& instruction = program.graph.instructions[i];
      try {
        std::vector<IValue> stack = operand_values(instruction, frame);
        call(instruction, stack, program.where);
        store_outputs(instruction, stack, frame);
      } catch (const std::exception&) {  // the run itself will tell
      }
    }
    return frame;
  }

  /// The rows of the whole table that an index names; undefined where it is no index, or of other rows.
  at::Tensor rows_named(std::size_t table, const LookUp& look_up, const IValue& value) const {
    if (!value.isTensor() || !at::isIntegralType(value.toTensor().scalar_type(), /*includeBool=*/false) ||
        value.toTensor().scalar_type() == at::kByte)
      return {};
    at::Tensor index = value.toTensor().to(at::kCPU, at::kLong).contiguous();
    const std::int64_t all = held[table] ? std::ssize(*held[table]) : tables[table].rows;
    if (look_up.from_end) index = at::where(index < 0, index + all, index);
    if (index.numel() > 0 && (index.min().item<std::int64_t>() < 0 || index.max().item<std::int64_t>() >= all))
      return {};
    if (!held[table]) return index;
    return at::tensor(*held[table], at::TensorOptions().dtype(at::kLong)).take(index);
  }

  bool mark(std::size_t table, const LookUp& look_up, const IValue& value) {
    const at::Tensor rows = rows_named(table, look_up, value);
    if (!rows.defined()) return false;
    const std::int64_t* row = rows.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < rows.numel(); ++i)
      bits[table][static_cast<std::size_t>(row[i] / 64)] |= std::uint64_t{1} << (row[i] % 64);
    return true;
  }
};

RowMarks::RowMarks(const Program& program) : impl_(std::make_unique<Impl>(*program.impl_)) {}
RowMarks::~RowMarks() = default;

const std::vector<RowTable>& RowMarks::tables() const { return impl_->tables; }
const std::vector<bool>& RowMarks::inputs() const { return impl_->inputs; }

void RowMarks::mark(const std::vector<at::Tensor>& inputs) {
  const at::NoGradGuard no_grad;
  const DefaultDtypeScope default_dtype(impl_->program.map_dtype(at::kFloat));
  const Frame frame = impl_->indices(inputs);
  for (std::size_t t = 0; t < impl_->tables.size(); ++t)
    for (const LookUp& look_up : impl_->look_ups[t]) {
      const int slot = index_of(impl_->program.graph, look_up).slot;
      if (!impl_->mark(t, look_up, frame[static_cast<std::size_t>(slot)])) impl_->whole[t] = true;
    }
}

std::vector<LookedUp> RowMarks::look_ups(const std::vector<at::Tensor>& inputs) const {
  const at::NoGradGuard no_grad;
  const DefaultDtypeScope default_dtype(impl_->program.map_dtype(at::kFloat));
  const Frame frame = impl_->indices(inputs);
  std::vector<LookedUp> all;
  for (std::size_t t = 0; t < impl_->tables.size(); ++t)
    for (const LookUp& look_up : impl_->look_ups[t]) {
      const int slot = index_of(impl_->program.graph, look_up).slot;
      all.push_back({t, impl_->rows_named(t, look_up, frame[static_cast<std::size_t>(slot)])});
    }
  return all;
}

std::optional<std::vector<std::int64_t>> RowMarks::rows(std::size_t table) const {
  if (impl_->whole[table]) return std::nullopt;
  std::vector<std::int64_t> rows;
  for (std::size_t word = 0; word < impl_->bits[table].size(); ++word)
    for (std::uint64_t left = impl_->bits[table][word]; left != 0; left &= left - 1)
      rows.push_back(static_cast<std::int64_t>(64 * word) + std::countr_zero(left));
  return rows;
}

// --- columns of inputs ----------------------------------------------------------------------------------------------

std::vector<InputColumns> input_columns(const Program& program) {
  const Program::Impl& impl = *program.impl_;
  const Graph& graph = impl.graph;
  std::map<int, std::size_t> parameters, inputs;  // slots -> stored, user inputs
  for (std::size_t i = 0; i < impl.feeds.size(); ++i) {
    const Program::Impl::Feed& feed = impl.feeds[i];
    if (feed.kind == Program::Impl::Feed::Kind::kParameter) parameters[graph.inputs[i]] = feed.stored;
    if (feed.kind == Program::Impl::Feed::Kind::kUserInput) inputs[graph.inputs[i]] = feed.index;
  }
  std::vector<int> reads(impl.stored.size(), 0);
  std::vector<std::optional<std::size_t>> multiplies(impl.stored.size());
  const auto read = [&](int slot) {
    if (const auto found = parameters.find(slot); found != parameters.end()) ++reads[impl.owners[found->second]];
  };
  for (const Instruction& instruction : graph.instructions) {
    for (const Operand& operand : instruction.operands) for_each_slot(operand, read);
    if (!instruction.op || instruction.op->schema().name() != "aten::linear" || instruction.operands.size() < 2)
      continue;
    const Operand &x = instruction.operands[0], &weight = instruction.operands[1];
    if (x.kind != Operand::Kind::kSlot || weight.kind != Operand::Kind::kSlot) continue;
    const auto input = inputs.find(x.slot), parameter = parameters.find(weight.slot);
    if (input != inputs.end() && parameter != parameters.end())
      multiplies[impl.owners[parameter->second]] = input->second;
  }
  for (const Operand& output : graph.outputs) for_each_slot(output, read);
  std::vector<InputColumns> all;
  for (std::size_t s = 0; s < impl.stored.size(); ++s)
    if (multiplies[s] && reads[s] == 1 && impl.stored[s].entry.shape.size() == 2)
      all.push_back({impl.stored[s].entry.name, *multiplies[s]});
  return all;
}

}  // namespace hesspect
