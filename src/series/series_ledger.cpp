#include "hesspect/series/series_ledger.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "hesspect/core/errors.h"
#include "hesspect/core/json_nesting.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "hesspect/io/fields.h"

namespace hesspect {
namespace {

using nlohmann::json;

constexpr std::int64_t kLayout = 1;

constexpr SeriesState kStates[] = {SeriesState::kFound,  SeriesState::kRunning, SeriesState::kDone,
                                   SeriesState::kFailed, SeriesState::kSkipped, SeriesState::kGone};

/// A ledger's text with the fields that earlier versions did not write. What is no ledger comes back as it is.
std::string with_later_fields(const std::string& text) {
  if (json_nests_deeper(text)) return text;
  json ledger = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!ledger.is_object() || !ledger.contains("entries") || !ledger["entries"].is_array()) return text;
  for (json& entry : ledger["entries"]) {
    if (!entry.is_object()) return text;
    for (const char* const number : {"deaths", "kept"}) entry.emplace(number, 0);
    for (const char* const word : {"host", "boot"}) entry.emplace(word, "");
  }
  return ledger.dump();
}

}  // namespace

std::string to_string(SeriesState state) {
  switch (state) {
    case SeriesState::kFound: return "found";
    case SeriesState::kRunning: return "running";
    case SeriesState::kDone: return "done";
    case SeriesState::kFailed: return "failed";
    case SeriesState::kSkipped: return "skipped";
    case SeriesState::kGone: return "gone";
  }
  return "unknown";
}

void fields(auto& v, Is<SeriesEntry> auto& entry) {
  v("path", entry.path, "name", entry.name, "step", entry.step, "time", entry.time);
  v.choice("state", entry.state, std::span<const SeriesState>(kStates));
  v("fingerprint", entry.fingerprint, "sha256", entry.sha256, "reason", entry.reason, "exit_code", entry.exit_code,
    "starts", entry.count.starts, "deaths", entry.count.deaths, "kept", entry.count.kept, "host", entry.boot.host,
    "boot", entry.boot.id, "result", entry.result, "products", entry.products, "seconds", entry.seconds, "fresh",
    entry.fresh, "overlap", entry.overlap);
}

void fields(auto& v, Is<SeriesLedger> auto& ledger) {
  v("layout", ledger.layout, "config", ledger.config, "model", ledger.model, "data", ledger.data, "ended", ledger.ended,
    "last", ledger.last, "entries", ledger.entries);
}

SeriesEntry* SeriesLedger::find(const std::string& path) {
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry)
    if (entry->path == path) return &*entry;
  return nullptr;
}

std::optional<SeriesLedger> read_series_ledger(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return std::nullopt;
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in) throw InputError("cannot read the series' ledger " + quote(file.string()) + ": " + std::strerror(errno));
  auto ledger =
      FieldReader::from<SeriesLedger>(with_later_fields(text.str()), "the series' ledger " + quote(file.string()));
  if (ledger.layout != kLayout)
    throw InputError("the series' ledger " + quote(file.string()) + " has layout " + std::to_string(ledger.layout) +
                     ", and this version reads layout " + std::to_string(kLayout));
  return ledger;
}

void write_series_ledger(const std::filesystem::path& file, const SeriesLedger& ledger) {
  const std::string text = FieldWriter::text(ledger) + "\n";
  write_file_atomically(file, std::as_bytes(std::span(text)));
}

}  // namespace hesspect
