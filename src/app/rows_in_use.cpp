#include "rows_in_use.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>

#include "hesspect/core/errors.h"
#include "hesspect/core/log.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"

namespace hesspect {
namespace {

/// Vectors that would be shorter by less than this share are left as they are.
constexpr double kWorthwhile = 0.01;
constexpr std::int64_t kBlock_bytes = std::int64_t{16} << 20;  // of data that are read at once

/// The arrays that indices are made of, without the others.
DatasetSpec narrowed(const DatasetSpec& spec, const std::vector<bool>& inputs) {
  DatasetSpec narrow;
  narrow.path = spec.path;
  narrow.samples = spec.samples;
  narrow.unit_rows = spec.unit_rows;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i]) continue;
    narrow.inputs.push_back(spec.inputs[i]);
    narrow.input_dims.push_back(i < spec.input_dims.size() ? spec.input_dims[i] : 0);
  }
  return narrow;
}

std::int64_t bytes_of_row(const ArrayFile& file, const DatasetSpec& spec) {
  const std::int64_t first = 0;
  std::int64_t bytes = 1;
  for (const at::Tensor& input : load_rows(file, spec, std::span(&first, 1)).inputs)
    bytes += static_cast<std::int64_t>(input.nbytes());
  return bytes;
}

/// Rows that go through the program at once, whole units.
std::int64_t rows_of_block(const Program& program, std::int64_t row_bytes, std::int64_t unit_rows) {
  if (const auto fixed = program.static_batch()) return *fixed;
  const std::int64_t most = std::max<std::int64_t>(1, program.most_rows().value_or(kBlock_bytes) / unit_rows);
  return std::clamp<std::int64_t>(kBlock_bytes / row_bytes / unit_rows, 1, most) * unit_rows;
}

void mark_share(RowMarks& marks, const Program& program, const ArrayFile& file, const DatasetSpec& spec,
                const Communicator& world) {
  for_each_block(program, file, spec, marks.inputs(), world,
                 [&](const std::vector<at::Tensor>& inputs, std::int64_t) { marks.mark(inputs); });
}

/// The rows that any rank has marked, ascending; none where one of them can't tell. Collective.
std::vector<std::int64_t> united(const std::optional<std::vector<std::int64_t>>& mine, Communicator& world) {
  if (world.any(!mine)) return {};
  std::vector<std::int64_t> all;
  const std::string bytes(reinterpret_cast<const char*>(mine->data()), mine->size() * sizeof(std::int64_t));
  for (const std::string& theirs : world.all_gather_bytes(bytes)) {
    const std::size_t before = all.size();
    all.resize(before + theirs.size() / sizeof(std::int64_t));
    if (!theirs.empty()) std::memcpy(all.data() + before, theirs.data(), theirs.size());
  }
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  if (all.empty()) all.push_back(0);  // a tensor without rows is none that every op takes
  return all;
}

}  // namespace

void for_each_block(const Program& program, const ArrayFile& file, const DatasetSpec& spec,
                    const std::vector<bool>& wanted, const Communicator& world, const BlockOfRows& f) {
  std::vector<at::Tensor> inputs(wanted.size());
  const DatasetSpec narrow = narrowed(spec, wanted);
  if (narrow.inputs.empty()) return f(inputs, 0);
  const std::int64_t rows = count_rows(file, narrow);
  const std::int64_t block = rows_of_block(program, bytes_of_row(file, narrow), spec.unit_rows);
  const RowRange share = shard_rows(rows, world.size(), world.rank(), spec.unit_rows);
  for (const RowRange& range : micro_batches(share, block)) {
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(range.size()));
    std::iota(numbers.begin(), numbers.end(), range.begin);
    if (program.static_batch())
      numbers.resize(static_cast<std::size_t>(block), numbers.back());  // as a run fills it up
    const DataShard some = load_rows(file, narrow, numbers);
    auto given = some.inputs.begin();
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (wanted[i]) inputs[i] = *given++;
    f(inputs, range.size());
  }
}

RowsInUse find_rows_in_use(const Program& program, const ArrayFile& file, const DatasetSpec& spec,
                           Communicator& world) {
  const Timer timer;
  RowMarks marks(program);
  const double enough = kWorthwhile * static_cast<double>(program.layout().size());
  std::int64_t most = 0, left_out = 0;
  for (const RowTable& table : marks.tables()) most += table.rows * table.width;
  if (static_cast<double>(most) < enough) return {};
  bool can_tell = true;
  try {
    mark_share(marks, program, file, spec, world);
  } catch (const std::exception& error) {  // the run itself will say it where it matters
    log_debug(std::string("rows in use can't be told: ") + error.what());
    can_tell = false;
  }
  RowsInUse in_use;
  for (std::size_t t = 0; t < marks.tables().size(); ++t) {
    const RowTable& table = marks.tables()[t];
    std::vector<std::int64_t> rows = united(can_tell ? marks.rows(t) : std::nullopt, world);
    if (rows.empty()) continue;
    left_out += (table.rows - std::ssize(rows)) * table.width;
    in_use.push_back({table.name, std::move(rows)});
  }
  log_debug("rows in use found in " + format_duration(timer.elapsed_s()));
  return static_cast<double>(left_out) < enough ? RowsInUse{} : in_use;
}

RowsInUse united(const RowsInUse& a, const RowsInUse& b) {
  RowsInUse both;
  for (const TableRows& table : a) {
    const auto same = std::ranges::find(b, table.name, &TableRows::name);
    if (same == b.end()) continue;
    both.push_back({table.name, {}});
    std::ranges::set_union(table.rows, same->rows, std::back_inserter(both.back().rows));
  }
  return both;
}

std::vector<std::string> tables_in_use(const ParameterLayout& layout) {
  std::vector<std::string> tables;
  for (const ParameterEntry& entry : layout.entries())
    if (entry.rows)
      tables.push_back(entry.name + ": " + format_count(entry.shape.front()) + " of " +
                       format_count(entry.model_shape.front()) + " rows");
  return tables;
}

}  // namespace hesspect
