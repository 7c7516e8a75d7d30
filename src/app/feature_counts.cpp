#include "feature_counts.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <unordered_map>

#include "hesspect/comm/agree.h"
#include "hesspect/core/log.h"
#include "hesspect/model/rows_in_use.h"
#include "rows_in_use.h"

namespace hesspect {
namespace {

using What = FeaturePiece::What;
using RowCounts = std::unordered_map<std::int64_t, std::int64_t>;

/// Sums over ranks, by row. Collective.
TableCounts counts_of_all(const std::string& parameter, const RowCounts& mine, Communicator& world) {
  std::vector<std::int64_t> pairs;
  for (const auto& [row, count] : mine) pairs.insert(pairs.end(), {row, count});
  const std::string bytes(reinterpret_cast<const char*>(pairs.data()), pairs.size() * sizeof(std::int64_t));
  std::map<std::int64_t, std::int64_t> all;
  for (const std::string& theirs : world.all_gather_bytes(bytes)) {
    std::vector<std::int64_t> some(theirs.size() / sizeof(std::int64_t));
    if (!theirs.empty()) std::memcpy(some.data(), theirs.data(), theirs.size());
    for (std::size_t i = 0; i + 1 < some.size(); i += 2) all[some[i]] += some[i + 1];
  }
  TableCounts table{parameter, {}, {}};
  for (const auto& [row, count] : all) {
    table.rows.push_back(row);
    table.counts.push_back(count);
  }
  return table;
}

std::vector<at::Tensor> reversed(std::vector<at::Tensor> inputs) {
  for (at::Tensor& input : inputs)
    if (input.defined()) input = input.flip({0});
  return inputs;
}

/// How a look-up's index lies. Told by rows of data in reverse: an index by rows is then reversed, a shared one (of
/// positions, say) is as it was.
struct IndexForms {
  std::vector<double> by_rows, shared;  // [look-ups]: 1 as long as it can be

  void see(const std::vector<LookedUp>& given, const std::vector<LookedUp>& back, std::int64_t batch) {
    if (by_rows.empty()) by_rows.assign(given.size(), 1), shared.assign(given.size(), 1);
    for (std::size_t i = 0; i < given.size(); ++i) {
      const at::Tensor &a = given[i].rows, &b = back[i].rows;
      const bool told = a.defined() && b.defined() && a.sizes() == b.sizes();
      if (!told || a.dim() == 0 || a.size(0) != batch || !at::equal(a.flip({0}), b)) by_rows[i] = 0;
      if (!told || !at::equal(a, b)) shared[i] = 0;
    }
  }
};

/// Runs the index part of the graph over this rank's rows.
class LookUps {
 public:
  LookUps(const Problem& problem, Communicator& world) : problem_(problem), world_(world), marks_(*problem.program) {}

  const std::vector<RowTable>& tables() const { return marks_.tables(); }
  const std::vector<bool>& inputs() const { return marks_.inputs(); }

  /// Calls f(look-ups, inputs, rows of data). @param more  inputs that f wants beside
  template <class F>
  void for_each(const std::vector<bool>& more, F&& f) {
    std::vector<bool> wanted = marks_.inputs();
    for (std::size_t i = 0; i < more.size(); ++i) wanted[i] = wanted[i] || more[i];
    for_each_block(
        *problem_.program, *problem_.file, problem_.spec, wanted, world_,
        [&](const std::vector<at::Tensor>& inputs, std::int64_t rows) { f(marks_.look_ups(inputs), inputs, rows); });
  }

  /// Collective. By this rank's first block, and those of the others.
  IndexForms forms() {
    IndexForms forms;
    bool first = true;
    agree(world_, [&] {
      for_each({}, [&](const std::vector<LookedUp>& given, const std::vector<at::Tensor>& inputs, std::int64_t rows) {
        if (!first) return;
        first = false;
        std::int64_t batch = rows;
        for (const at::Tensor& input : inputs)
          if (input.defined()) batch = input.size(0);
        forms.see(given, marks_.look_ups(reversed(inputs)), batch);
      });
    });
    std::size_t count = forms.by_rows.size();
    count = static_cast<std::size_t>(world_.max(static_cast<std::int64_t>(count)));
    forms.by_rows.resize(count, 1);
    forms.shared.resize(count, 1);
    std::vector<double> lost;
    for (const double one : forms.by_rows) lost.push_back(1 - one);
    for (const double one : forms.shared) lost.push_back(1 - one);
    lost = world_.sum(std::move(lost));
    for (std::size_t i = 0; i < count; ++i) {
      forms.by_rows[i] = lost[i] == 0 ? 1 : 0;
      forms.shared[i] = lost[count + i] == 0 ? 1 : 0;
    }
    return forms;
  }

 private:
  const Problem& problem_;
  Communicator& world_;
  RowMarks marks_;
};

/// A look-up's index as rows of data have it.
struct IndexOfRows {
  const std::int64_t* index = nullptr;
  std::int64_t per_row = 0, stride = 0;  // elements that a row of data names, and from one row to the next

  IndexOfRows(const at::Tensor& rows, bool by_rows) : index(rows.const_data_ptr<std::int64_t>()) {
    per_row = by_rows ? rows.numel() / std::max<std::int64_t>(1, rows.size(0)) : rows.numel();
    stride = by_rows ? per_row : 0;
  }
};

}  // namespace

std::vector<TableCounts> count_look_ups(const Problem& problem, Communicator& world) {
  LookUps look_ups(problem, world);
  const IndexForms forms = look_ups.forms();
  const std::vector<RowTable>& tables = look_ups.tables();
  std::vector<RowCounts> counts(tables.size());
  std::vector<double> lost(tables.size(), 0);
  agree(world, [&] {
    look_ups.for_each({}, [&](const std::vector<LookedUp>& given, const std::vector<at::Tensor>&, std::int64_t rows) {
      for (std::size_t i = 0; i < given.size(); ++i) {
        const LookedUp& one = given[i];
        if (!one.rows.defined() || (forms.by_rows[i] == 0 && forms.shared[i] == 0)) {
          lost[one.table] = 1;
          continue;
        }
        RowCounts& of_table = counts[one.table];
        const std::int64_t* row = one.rows.const_data_ptr<std::int64_t>();
        if (forms.by_rows[i] != 0) {
          const std::int64_t named = rows * (one.rows.numel() / std::max<std::int64_t>(1, one.rows.size(0)));
          for (std::int64_t k = 0; k < named; ++k) ++of_table[row[k]];
        } else {
          const std::int64_t all = rows > 0 ? rows : world.rank() == 0 ? problem.rows : 0;
          for (std::int64_t k = 0; k < one.rows.numel(); ++k) of_table[row[k]] += all;
        }
      }
    });
  });
  lost = world.sum(std::move(lost));
  std::vector<TableCounts> all;
  std::map<std::string, RowCounts> by_parameter;
  std::map<std::string, bool> told;
  std::vector<std::string> order;
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const std::string& name = tables[t].parameter;
    if (!told.contains(name)) {
      told[name] = true;
      order.push_back(name);
    }
    told[name] = told[name] && tables[t].alone && lost[t] == 0;
    for (const auto& [row, count] : counts[t]) by_parameter[name][row] += count;
  }
  for (const std::string& name : order) {
    if (told[name])
      all.push_back(counts_of_all(name, by_parameter[name], world));
    else
      log_debug("how often rows of " + name + " are looked up can't be told");
  }
  return all;
}

std::vector<FeatureFrequency> count_features(const Problem& problem, const std::vector<Feature>& features,
                                             const std::vector<TableCounts>& counts, Communicator& world) {
  LookUps look_ups(problem, world);
  const IndexForms forms = look_ups.forms();
  const std::vector<RowTable>& tables = look_ups.tables();
  const std::vector<InputColumns> columns = input_columns(*problem.program);

  struct OfTable {
    std::vector<std::size_t> any;                                       // features that any row of it touches
    std::unordered_map<std::int64_t, std::vector<std::size_t>> by_row;  // and that this one does
  };
  struct OfInput {
    std::size_t input, feature;
    std::vector<IndexRange> columns;  // none: all
  };
  std::map<std::string, OfTable> of_tables;
  std::vector<OfInput> of_inputs;
  std::vector<FeatureFrequency> found(features.size());
  std::vector<bool> more(look_ups.inputs().size(), false);
  std::vector<bool> told(features.size(), true);
  for (std::size_t f = 0; f < features.size(); ++f) {
    double named = 0;
    for (const FeaturePiece& piece : features[f].pieces) {
      if (const TableCounts* table = counts_of(counts, piece.parameter)) {
        OfTable& of_table = of_tables[piece.parameter];
        if (piece.what != What::kRows) {
          of_table.any.push_back(f);
          for (const std::int64_t count : table->counts) named += static_cast<double>(count);
          continue;
        }
        for (const IndexRange& range : piece.indices) {
          const auto first = std::ranges::lower_bound(table->rows, range.begin);
          for (auto row = first; row != table->rows.end() && *row < range.end; ++row) {
            of_table.by_row[*row].push_back(f);
            named += static_cast<double>(table->counts[static_cast<std::size_t>(row - table->rows.begin())]);
          }
        }
        continue;
      }
      named = std::numeric_limits<double>::quiet_NaN();
      const auto column = std::ranges::find(columns, piece.parameter, &InputColumns::parameter);
      if (column == columns.end() || piece.what == What::kRows) {
        told[f] = false;
        continue;
      }
      of_inputs.push_back({column->input, f, piece.indices});
      more[column->input] = true;
    }
    found[f].look_ups = named;
  }

  std::vector<double> touched(features.size(), 0);
  std::vector<std::int64_t> last(features.size(), -1);  // row of data that touched it last
  std::int64_t number = 0;
  agree(world, [&] {
    look_ups.for_each(
        more, [&](const std::vector<LookedUp>& given, const std::vector<at::Tensor>& inputs, std::int64_t rows) {
          struct Source {
            const OfTable* table;
            IndexOfRows index;
          };
          std::vector<Source> sources;
          for (std::size_t i = 0; i < given.size(); ++i) {
            const auto table = of_tables.find(tables[given[i].table].parameter);
            if (table != of_tables.end() && given[i].rows.defined())
              sources.push_back({&table->second, IndexOfRows(given[i].rows, forms.by_rows[i] != 0)});
          }
          struct Nonzero {
            std::size_t feature;
            at::Tensor rows;  // [rows] bool
          };
          std::vector<Nonzero> nonzero;
          for (const OfInput& one : of_inputs) {
            const at::Tensor input = inputs[one.input].to(at::kCPU).ne(0);
            at::Tensor any = at::zeros({input.size(0)}, at::kBool);
            const auto see = [&](const at::Tensor& some) { any.logical_or_(some.reshape({some.size(0), -1}).any(1)); };
            if (one.columns.empty()) see(input);
            for (const IndexRange& range : one.columns) see(input.narrow(-1, range.begin, range.size()));
            nonzero.push_back({one.feature, any});
          }
          const std::int64_t all = rows > 0 ? rows : world.rank() == 0 ? problem.rows : 0;
          for (std::int64_t r = 0; r < all; ++r, ++number) {
            const auto touch = [&](std::size_t f) {
              if (last[f] == number) return;
              last[f] = number;
              ++touched[f];
            };
            for (const Source& source : sources) {
              const std::int64_t* row = source.index.index + r * source.index.stride;
              if (source.index.per_row > 0) std::ranges::for_each(source.table->any, touch);
              if (source.table->by_row.empty()) continue;
              for (std::int64_t k = 0; k < source.index.per_row; ++k)
                if (const auto by = source.table->by_row.find(row[k]); by != source.table->by_row.end())
                  std::ranges::for_each(by->second, touch);
            }
            for (const Nonzero& one : nonzero)
              if (one.rows.const_data_ptr<bool>()[r]) touch(one.feature);
          }
        });
  });
  touched = world.sum(std::move(touched));
  for (std::size_t f = 0; f < features.size(); ++f)
    if (told[f]) found[f].rows = touched[f];
  return found;
}

}  // namespace hesspect
