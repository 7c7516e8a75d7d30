// What a series knows of each checkpoint: found, under way, done, failed, skipped, or gone before it was read.
//
// The ledger is one file, written anew under another name, synced and renamed at each change: it is whole at any
// moment, and what it says is on disk before anything that follows from it begins.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/core/start_count.h"

namespace hesspect {

enum class SeriesState {
  kFound,    // seen, not read yet
  kRunning,  // its run has begun
  kDone,
  kFailed,   // `reason` says why
  kSkipped,  // by --every, or its content is an earlier one's
  kGone      // it was there, and was removed before it was read
};
std::string to_string(SeriesState state);

struct SeriesEntry {
  std::string path;  // as it was found
  std::string name;
  std::int64_t step = -1;  // -1: its name tells none
  double time = 0;         // of change, unix seconds
  SeriesState state = SeriesState::kFound;
  std::string fingerprint;  // sizes and times of its files when it was taken
  std::string sha256;       // of its content; "": not read
  std::string reason;       // why it failed, was skipped, or is gone
  std::int64_t exit_code = 0;
  StartCount count;    // of its run
  Boot boot;           // where that began last
  std::string result;  // file, relative to the series file
  std::int64_t products = 0;
  double seconds = 0;
  bool fresh = true;   // its run took nothing over from the checkpoint before
  double overlap = 0;  // of its top eigenvectors with those before; NaN: not known
  bool is_open() const { return state == SeriesState::kFound || state == SeriesState::kRunning; }
};

struct SeriesLedger {
  std::int64_t layout = 1;
  std::string config;  // ini text of what decides the results
  std::string model, data;
  bool ended = false;                // the series has come to its end
  std::string last;                  // result of the checkpoint that was done last, as in its entry; "": none yet
  std::vector<SeriesEntry> entries;  // in the order in which they were found

  /// The newest entry of that path; nullptr: none.
  SeriesEntry* find(const std::string& path);
};

/// None where the file is not there. @throws InputError: it can't be read, or is no ledger
std::optional<SeriesLedger> read_series_ledger(const std::filesystem::path& file);

/// Durable when it returns. @throws InputError
void write_series_ledger(const std::filesystem::path& file, const SeriesLedger& ledger);

}  // namespace hesspect
