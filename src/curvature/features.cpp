#include "hesspect/curvature/features.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "feature_pieces.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/model/parameter_layout.h"
#include "part_selection.h"

namespace hesspect {
namespace {

using What = FeaturePiece::What;

constexpr std::int64_t kUnknownListed = 5;

const std::vector<std::int64_t>& model_shape(const ParameterEntry& entry) {
  return entry.rows ? entry.model_shape : entry.shape;
}

const ParameterEntry& entry_of(const ParameterLayout& layout, const FeaturePiece& piece) {
  const ParameterEntry* entry = layout.find(piece.parameter);
  if (entry == nullptr) throw Error(ExitCode::kInternal, "a feature of an unknown parameter");
  return *entry;
}

/// Rows of the entry as it is held: which of the model's these are, and whether the data use them.
class HeldRows {
 public:
  HeldRows(const ParameterEntry& entry, const TableCounts* counts) : entry_(entry), counts_(counts) {}

  /// Calls f(first, last + 1) for held rows in use within [begin, end) of the model's rows.
  template <class F>
  void for_each(IndexRange model, F&& f) const {
    if (counts_ != nullptr) {
      const auto first = std::ranges::lower_bound(counts_->rows, model.begin);
      for (auto row = first; row != counts_->rows.end() && *row < model.end; ++row) {
        const std::int64_t at = held(*row);
        if (at >= 0) f(at, at + 1);
      }
    } else if (!entry_.rows) {
      f(model.begin, model.end);
    } else {
      const auto first = std::ranges::lower_bound(*entry_.rows, model.begin);
      const auto last = std::ranges::lower_bound(*entry_.rows, model.end);
      f(first - entry_.rows->begin(), last - entry_.rows->begin());
    }
  }

 private:
  std::int64_t held(std::int64_t row) const {
    if (!entry_.rows) return row;
    const auto found = std::ranges::lower_bound(*entry_.rows, row);
    return found != entry_.rows->end() && *found == row ? found - entry_.rows->begin() : -1;
  }

  const ParameterEntry& entry_;
  const TableCounts* counts_;
};

std::string kind_of(const Feature& feature) {
  std::vector<What> kinds;
  for (const FeaturePiece& piece : feature.pieces) kinds.push_back(piece.what);
  if (std::ranges::any_of(kinds, [&](What what) { return what != kinds.front(); })) return "group";
  return kinds.front() == What::kRows ? "rows" : kinds.front() == What::kColumns ? "columns" : "tensors";
}

/// One bucket or row.
Feature rows_of(const std::string& name, const std::string& kind, const std::string& parameter,
                std::vector<std::int64_t> rows) {
  std::vector<IndexRange> indices;
  for (const std::int64_t row : rows) indices.push_back({row, row + 1});
  return {name, kind, {{parameter, What::kRows, merged(std::move(indices))}}};
}

/// Positions of the rows in use, the rarest first.
std::vector<std::size_t> by_frequency(const TableCounts& table) {
  std::vector<std::size_t> order(table.rows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return table.counts[i]; });
  return order;
}

void add_buckets(const TableCounts& table, std::int64_t buckets, std::vector<Feature>& features) {
  const std::vector<std::size_t> order = by_frequency(table);
  const std::size_t count = order.size();
  std::vector<std::vector<std::int64_t>> rows;
  for (std::size_t i = 0, bucket = 0; i < count; ++i) {
    const auto due = static_cast<std::size_t>(static_cast<std::int64_t>(i) * buckets) / count;
    const bool tied = i > 0 && table.counts[order[i]] == table.counts[order[i - 1]];
    if (rows.empty() || (due > bucket && !tied)) {
      rows.emplace_back();
      bucket = due;
    }
    rows.back().push_back(table.rows[order[i]]);
  }
  if (rows.size() < 2) return;  // it would be the table again
  for (std::size_t b = 0; b < rows.size(); ++b) {
    std::ranges::sort(rows[b]);
    features.push_back(
        rows_of(table.parameter + "@bucket=" + std::to_string(b + 1) + "of" + std::to_string(rows.size()), "bucket",
                table.parameter, std::move(rows[b])));
  }
}

void add_rows(const TableCounts& table, std::int64_t rows, std::vector<Feature>& features) {
  std::vector<std::size_t> order = by_frequency(table);
  std::ranges::reverse(order);
  const auto count = std::ssize(order), taken = std::min<std::int64_t>(rows, count);
  for (std::int64_t i = 0; i < taken; ++i) {
    const std::int64_t at = taken == 1 ? 0 : i * (count - 1) / (taken - 1);
    const std::int64_t row = table.rows[order[static_cast<std::size_t>(at)]];
    features.push_back(rows_of(table.parameter + "@rows=" + std::to_string(row), "row", table.parameter, {row}));
  }
}

}  // namespace

std::vector<IndexRange> merged(std::vector<IndexRange> ranges) {
  std::vector<IndexRange> all;
  std::ranges::sort(ranges, {}, &IndexRange::begin);
  for (const IndexRange& range : ranges) {
    if (range.size() <= 0) continue;
    if (!all.empty() && all.back().end >= range.begin)
      all.back().end = std::max(all.back().end, range.end);
    else
      all.push_back(range);
  }
  return all;
}

void require_indices(const std::string& where, const ParameterEntry& entry, const FeaturePiece& piece) {
  if (piece.what == What::kWhole) return;
  const std::vector<std::int64_t>& shape = model_shape(entry);
  const std::size_t d = piece.what == What::kRows ? 0 : 1;
  const std::int64_t size = d < shape.size() ? shape[d] : 0;
  std::vector<std::string> unknown;
  std::int64_t count = 0;
  for (const IndexRange& range : piece.indices) {
    const std::int64_t first = std::max(range.begin, size);
    for (std::int64_t i = first; i < range.end && std::ssize(unknown) < kUnknownListed; ++i)
      unknown.push_back(std::to_string(i));
    count += std::max<std::int64_t>(0, range.end - first);
  }
  if (count == 0) return;
  if (count > std::ssize(unknown)) unknown.push_back("… (" + std::to_string(count) + " in all)");
  throw InputError(where + ": parameter " + quote(entry.name) + " of shape " + format_shape(shape) + " has no " +
                   kDimensionNames[d] + " " + format_names(unknown) +
                   (size > 0 ? ": they are numbered 0 to " + std::to_string(size - 1) : ""));
}

void settle_kind(Feature& feature) {
  std::vector<FeaturePiece> pieces;
  for (FeaturePiece& piece : feature.pieces) {
    const auto same = std::ranges::find_if(pieces, [&](const FeaturePiece& other) {
      return other.parameter == piece.parameter && other.what == piece.what;
    });
    if (same == pieces.end()) {
      pieces.push_back(std::move(piece));
    } else {
      same->indices.insert(same->indices.end(), piece.indices.begin(), piece.indices.end());
      same->indices = merged(std::move(same->indices));
    }
  }
  feature.pieces = std::move(pieces);
  feature.kind = kind_of(feature);
}

const TableCounts* counts_of(const std::vector<TableCounts>& all, const std::string& parameter) {
  const auto found = std::ranges::find(all, parameter, &TableCounts::parameter);
  return found == all.end() ? nullptr : &*found;
}

std::vector<Feature> named_pieces(const ParameterLayout& layout, const std::string& option,
                                  const std::vector<std::pair<std::string, std::string>>& patterns) {
  std::vector<Feature> features;
  for (const auto& [name, pattern] : patterns) {
    auto feature = std::ranges::find(features, name, &Feature::name);
    if (feature == features.end()) feature = features.insert(features.end(), {name, "", {}});
    const std::string where = "--" + option + " " + name;
    const Selection selection = selection_from(where, pattern);
    const std::vector<bool> chosen = matching(layout, option + " " + name, {selection.pattern});
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      if (!chosen[i]) continue;
      const ParameterEntry& entry = layout.entries()[i];
      FeaturePiece piece{entry.name, What::kWhole, merged(selection.indices)};
      if (!selection.indices.empty()) piece.what = selection.dimension == 0 ? What::kRows : What::kColumns;
      require_indices(where, entry, piece);
      feature->pieces.push_back(std::move(piece));
    }
  }
  for (Feature& feature : features) settle_kind(feature);
  return features;
}

std::vector<Feature> named_features(const ParameterLayout& layout,
                                    const std::vector<std::pair<std::string, std::string>>& patterns) {
  return named_pieces(layout, "feature", patterns);
}

std::vector<Feature> automatic_features(const ParameterLayout& layout, const std::vector<TableCounts>& counts,
                                        std::int64_t buckets, std::int64_t rows) {
  std::vector<Feature> features;
  for (const TableCounts& table : counts) {
    if (layout.find(table.parameter) == nullptr || table.rows.empty()) continue;
    features.push_back({table.parameter, "table", {{table.parameter}}});
    if (buckets > 0) add_buckets(table, buckets, features);
    if (rows > 0) add_rows(table, rows, features);
  }
  return features;
}

std::vector<IndexRange> ranges_in_use(const ParameterLayout& layout, const Feature& feature,
                                      const std::vector<TableCounts>& counts) {
  std::vector<IndexRange> ranges;
  for (const FeaturePiece& piece : feature.pieces) {
    const ParameterEntry& entry = entry_of(layout, piece);
    const TableCounts* table = counts_of(counts, entry.name);
    const std::vector<std::int64_t>& shape = entry.shape;
    const bool has_rows = !shape.empty();
    if (piece.what == What::kWhole && table == nullptr) {
      ranges.push_back({entry.offset, entry.offset + entry.numel});
      continue;
    }
    const std::int64_t width = has_rows && shape[0] > 0 ? entry.numel / shape[0] : 0;
    const HeldRows held(entry, table);
    std::vector<IndexRange> rows{{0, has_rows ? model_shape(entry)[0] : 0}};
    std::vector<IndexRange> within{{0, width}};  // of a row
    if (piece.what == What::kRows) rows = piece.indices;
    if (piece.what == What::kColumns) {
      const std::int64_t inner = width / shape.at(1);
      within.clear();
      for (const IndexRange& column : piece.indices) within.push_back({column.begin * inner, column.end * inner});
    }
    for (const IndexRange& some : rows)
      held.for_each(some, [&](std::int64_t first, std::int64_t last) {
        if (piece.what != What::kColumns) {
          ranges.push_back({entry.offset + first * width, entry.offset + last * width});
          return;
        }
        for (std::int64_t row = first; row < last; ++row)
          for (const IndexRange& w : within)
            ranges.push_back({entry.offset + row * width + w.begin, entry.offset + row * width + w.end});
      });
  }
  return ranges;
}

Part part_in_use(const ParameterLayout& layout, const Feature& feature, const std::vector<TableCounts>& counts) {
  return assembled(layout, feature.name, ranges_in_use(layout, feature, counts));
}

std::vector<IndexRange> model_ranges(const ParameterLayout& layout, const Feature& feature) {
  std::vector<IndexRange> ranges;
  for (const FeaturePiece& piece : feature.pieces) {
    const ParameterEntry& entry = entry_of(layout, piece);
    const std::vector<std::int64_t>& shape = model_shape(entry);
    const std::int64_t numel = entry.rows ? entry.model_numel : entry.numel;
    const std::int64_t offset = entry.model_offset;
    if (piece.what == What::kWhole) {
      ranges.push_back({offset, offset + numel});
      continue;
    }
    const std::size_t d = piece.what == What::kRows ? 0 : 1;
    std::int64_t outer = 1, inner = 1;
    for (std::size_t i = 0; i < shape.size(); ++i) (i < d ? outer : inner) *= i == d ? 1 : shape[i];
    for (std::int64_t o = 0; o < outer; ++o)
      for (const IndexRange& index : piece.indices)
        ranges.push_back({offset + (o * shape[d] + index.begin) * inner, offset + (o * shape[d] + index.end) * inner});
  }
  return ranges;
}

std::int64_t parameters_of(const ParameterLayout& layout, const Feature& feature) {
  std::int64_t count = 0;  // what two pieces share counts once
  for (const IndexRange& range : merged(model_ranges(layout, feature))) count += range.size();
  return count;
}

}  // namespace hesspect
