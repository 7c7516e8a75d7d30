#include "hesspect/series/series_text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/io/series_file.h"
#include "hesspect/series/series_ledger.h"

namespace hesspect {
namespace {

constexpr std::size_t kMostTold = 50;  // of checkpoints that are not in the file

std::string number(double value, const char* format) {
  if (!std::isfinite(value)) return "-";
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

/// "12.3 ± 0.4"; the error in two digits, none where it is not known.
std::string with_error(double value, double error, const char* format = "%.5g") {
  std::string text = number(value, format);
  if (std::isfinite(value) && std::isfinite(error)) text += " ± " + number(error, "%.2g");
  return text;
}

/// Columns that a terminal takes for it: "±" is of two bytes.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string aligned(const std::vector<std::vector<std::string>>& table) {
  std::vector<std::size_t> widths;
  for (const auto& line : table)
    for (std::size_t i = 0; i < line.size(); ++i) {
      if (widths.size() <= i) widths.push_back(0);
      widths[i] = std::max(widths[i], width_of(line[i]));
    }
  std::string text;
  for (const auto& line : table) {
    std::string row;
    for (std::size_t i = 0; i < line.size(); ++i)
      row += "  " + line[i] + std::string(widths[i] - width_of(line[i]), ' ');
    row.erase(row.find_last_not_of(' ') + 1);
    text += row + "\n";
  }
  return text;
}

/// What the ledger tells of those that are not done.
std::string others_of(const SeriesLedger& ledger) {
  std::map<SeriesState, std::vector<const SeriesEntry*>> by_state;
  std::string text;
  for (const SeriesEntry& entry : ledger.entries) by_state[entry.state].push_back(&entry);
  for (const auto& [state, entries] : by_state) {
    if (state == SeriesState::kDone) continue;
    text += (state == SeriesState::kFound     ? "to be taken"
             : state == SeriesState::kRunning ? "under way"
                                              : to_string(state)) +
            ": " + format_count(std::ssize(entries)) + "\n";
    std::vector<std::vector<std::string>> lines;
    for (const SeriesEntry* entry : entries) {
      if (lines.size() == kMostTold) break;
      lines.push_back({one_line(entry->name), one_line(entry->reason)});
    }
    text += aligned(lines);
    if (entries.size() > kMostTold) text += "  and more\n";
  }
  return text;
}

}  // namespace

std::string series_text(const std::filesystem::path& file) {
  const Series series = read_series(file);
  const auto& rows = series.rows;
  std::string text = "series of " + format_count(std::ssize(rows)) +
                     (rows.size() == 1 ? " checkpoint" : " checkpoints") + ", spectrum of the " +
                     one_line(series.curvature) + ", by hesspect " + one_line(series.version) + "\n";
  std::vector<std::vector<std::string>> table;
  table.push_back(
      {"step", "checkpoint", "loss", "largest eigenvalue", "trace", "its change", "overlap", "products", "time"});
  const bool rates = std::ranges::any_of(rows, [](const SeriesRow& row) { return std::isfinite(row.learning_rate); });
  if (rates) table.front().insert(table.front().begin() + 4, "half of it times the rate");
  std::int64_t products = 0;
  for (const SeriesRow& row : rows) {
    const double largest = row.top.empty() ? SeriesRow::kNotKnown : row.top.front().value;
    const double error = row.top.empty() ? SeriesRow::kNotKnown : row.top.front().error;
    std::vector<std::string> line{row.step < 0 ? "-" : std::to_string(row.step),
                                  one_line(row.name),
                                  number(row.loss, "%.4g"),
                                  with_error(largest, error),
                                  with_error(row.trace.value, row.trace.half_width),
                                  with_error(row.change.value, row.change.half_width, "%+.4g"),
                                  number(row.overlap, "%.3f"),
                                  format_count(row.products),
                                  format_duration(row.seconds)};
    if (rates) line.insert(line.begin() + 4, number(largest * row.learning_rate / 2, "%.3g"));
    table.push_back(std::move(line));
    products += row.products;
  }
  if (!rows.empty()) text += aligned(table) + format_count(products) + " products in all\n";
  const std::optional<SeriesLedger> ledger = read_series_ledger(file.string() + ".ledger.json");
  if (!ledger) return text + "the ledger of what has failed is not beside it\n";
  return text + others_of(*ledger) + (ledger->ended ? "it has ended\n" : "it has not ended\n");
}

}  // namespace hesspect
