// Which checkpoint of a series is next, and what has become of the others: on rank 0, with one owner.
//
//   SeriesBook book(config, info);
//   for (SeriesStep step = book.next(); step.kind != SeriesStep::Kind::kEnd; step = book.next()) {
//     if (step.kind == SeriesStep::Kind::kWait) book.wait(0.2);
//     else book.done(run(step), 0);
//   }
//
// What is decided is written down before it is acted on: a checkpoint is under way in the ledger before its run begins,
// and done only when its result is there. So a series that was killed, at whatever moment, goes on with the checkpoint
// it was at, by that run's own checkpoint, and takes none twice and forgets none.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/config/options.h"
#include "hesspect/io/series_file.h"
#include "hesspect/series/checkpoints.h"
#include "hesspect/series/folder_watch.h"
#include "hesspect/series/series_ledger.h"
#include "hesspect/series/series_lock.h"

namespace hesspect {

struct SeriesStep {
  enum class Kind { kTake, kWait, kEnd } kind = Kind::kEnd;
  std::string checkpoint;  // kTake: its path
  std::string name;
  std::string result;                  // and the file of its result
  bool resumes = false;                // an earlier start has begun it
  bool anew = false;                   // with other content, so that what it has is of no use
  std::string last;                    // file of the result before, from which it may begin; "": there is none
  std::int64_t number = 0, known = 0;  // of so many checkpoints that are known, those skipped left out
};

/// Products that a run with that result file need not take again, by its checkpoint (hesspect/run/products_kept.h).
using ProductsKept = std::function<std::int64_t(const std::string& result)>;

class SeriesBook {
  using Clock = std::chrono::steady_clock;

 public:
  /// Takes the lock of the output, and goes on from the ledger beside it where there is one. Writes the series file of
  /// what is done already.
  /// @param version  of this program, for the file
  /// @throws UsageError: another series is at work on the output, the ledger is of another configuration, or there is
  /// an
  ///         output without a ledger (--force takes its place); InputError: what can't be read or written
  /// @param products_kept  see there; nullptr: nothing is known of checkpoints of runs
  SeriesBook(const RunConfig& config, std::string version, ProductsKept products_kept = nullptr);

  /// What is to be done next; what it is, is written down. @throws InputError
  SeriesStep next();
  /// Waits for a change in the folders, at most so long.
  void wait(double most_s);

  /// The run of the checkpoint that was taken last has ended, with its result written.
  /// @param fresh    it took nothing over from the one before
  /// @param products_before  of a run of it that was not enough
  /// @param overlap  of its top eigenvectors with the one's before; NaN: not known
  /// @throws InputError: it can't be read or written, or model or data are others than when the series began
  void done(int exit_code, bool fresh, double overlap, std::int64_t products_before = 0);
  /// It has failed, or was removed meanwhile. @throws InputError where that can't be written down
  void failed(int exit_code, const std::string& line);
  /// It was stopped, and goes on when the series does.
  void stopped();

  /// 4: some have failed or are gone; 3: some are not as accurate as asked; else 0.
  int exit_code() const;
  /// "12 done, 1 failed, 3 skipped"
  std::string summary() const;
  const std::string& results_folder() const { return results_; }
  const SeriesLedger& ledger() const { return ledger_; }

 private:
  void look();
  void add(const FoundCheckpoint& found);
  void note_gone(const std::filesystem::path& path);
  bool may_be_ours(const std::filesystem::path& path) const;
  bool is_ready(SeriesEntry& entry);
  bool is_settled(const std::string& path, const std::string& fingerprint);
  SeriesStep take(SeriesEntry& entry);
  std::vector<SeriesEntry*> open_entries();
  bool is_over();
  std::string result_name(const SeriesEntry& entry) const;
  std::string absolute_result(const std::string& in_ledger) const;
  void save();
  void write_file();
  double learning_rate_at(std::int64_t step) const;

  const RunConfig config_;
  const SeriesConfig& series_;
  const std::string version_;
  const ProductsKept products_kept_;
  std::string results_;  // folder
  std::string ledger_file_;
  std::unique_ptr<SeriesLock> lock_;
  SeriesLedger ledger_;
  std::map<std::string, SeriesRow> rows_;  // of what is done, by result
  std::map<std::int64_t, double> rates_;
  double rate_ = SeriesRow::kNotKnown;
  std::unique_ptr<FolderWatch> watch_;
  struct Seen {
    std::string fingerprint;
    Clock::time_point since;
    std::string why;  // it is not whole
  };
  std::map<std::string, Seen> seen_;  // open ones, by path
  std::size_t current_ = 0;           // entry that was taken last
  bool looked_ = false;
  bool changed_ = true;  // the kernel has told of something since the last look
  Clock::time_point looked_at_;
  bool unsettled_ = false;  // what is done has been written to, and may still be
  bool end_seen_ = false;   // the end's marker, before the last look
};

}  // namespace hesspect
