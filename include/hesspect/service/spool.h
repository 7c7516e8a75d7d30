// The folder of a queue: one ini file a job, whose state is the folder that it lies in.
//
//   DIR/incoming/ID.ini              queued
//   DIR/slurm/ID.ini                 the same, for one job of Slurm's (or Flux's), whose number is in slurm/ID.number;
//                                    slurm/ID.array has the ids of an array's tasks, of which ID is the first
//   DIR/claimed/SERVICE/ID@N-D-P.ini a service has it: begun with N times, the last D of which ended with a service's
//                                    death without a gain, and with P products in its checkpoint when it began last;
//                                    then "-reboot", where the host has gone with that service
//   DIR/claimed/SERVICE/lease        touched by the service while it lives (lease.h)
//   DIR/claimed/SERVICE/ID.cancel    it is to stop
//   DIR/done/ID.ini, ID.json         ended, and what became of it; also in failed/ and cancelled/
//   DIR/done/ID.h5                   the result, where the job names no output
//   DIR/log/ID.log                   what it has said
//   DIR/checkpoints/ID               its checkpoint, where it names none
//
// A job goes from folder to folder by rename, which one alone can do: so two services share a spool, and whatever is
// killed, a job lies in one place. Only regular files of the spool's owner are looked at.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/config/job_options.h"
#include "hesspect/core/start_count.h"
#include "hesspect/service/job_info.h"

namespace hesspect {

/// A job that waits.
struct QueuedJob {
  std::string id;
  std::filesystem::path file;
  JobHead head;
  double arrived = 0;  // unix seconds: when it was submitted, or its file was written
};

class Spool {
 public:
  static constexpr std::size_t kMostBytes = 64 << 10;  // of a job's file
  static constexpr std::size_t kMostQueued = 20'000;   // jobs that are looked at; the others wait

  /// Makes the folders that are not there, so that they outlive a power cut. @throws InputError where that can't be
  static void make(const std::filesystem::path& folder);
  /// @throws InputError: no such folder; UsageError: another user's, or one that everybody may write to
  explicit Spool(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  uid_t owner() const { return owner_; }
  std::filesystem::path path(const std::string& sub) const { return folder_ / sub; }
  std::filesystem::path log_file(const std::string& id) const;
  std::filesystem::path checkpoint_folder(const std::string& id) const;
  std::filesystem::path result_file(const std::string& id) const;
  /// The spool's own folders: no job's output may lie there.
  static const std::vector<std::string>& sub_folders();

  /// Hands a job in. @param sub  "incoming", or "slurm" where a job of Slurm's alone shall take it
  /// @return its id. @throws InputError where it can't be written; UsageError where the queue is full
  std::string add(const JobOptions& job, const std::string& sub) const;

  /// Jobs that wait in a folder, in the order in which they are to run. Files that are none of ours are passed over,
  /// and told of once: see take_remarks.
  /// @param settled_s  a file that 'submit' has not named is left until it has been as it is for so long
  std::vector<QueuedJob> queued(const std::string& sub, double settled_s);
  std::vector<std::string> take_remarks();

  /// A job's file, if it may be taken. @throws InputError with what is wrong with it
  std::string read_job_file(const std::filesystem::path& file) const;

  /// All jobs: those that wait in their order, those at work, those that have ended (the newest last).
  /// @param most_ended  of the last so many that have ended
  std::vector<JobInfo> jobs(std::size_t most_ended);
  /// None where there is no such job.
  std::optional<JobInfo> find(const std::string& id);

  /// Whether a name may be a job's id: letters, digits, '.', '_', '-', at most 100, none of the last three in front.
  static bool is_id(const std::string& text);
  /// Whether 'submit' has named it: its file was renamed into the folder when it was whole.
  static bool is_submitted_id(const std::string& id);
  /// From the time and random numbers.
  static std::string new_id();

 private:
  struct Known {
    ino_t inode = 0;
    std::int64_t changed_ns = 0, bytes = 0;
    JobHead head;
  };
  void remark(const std::string& about, const std::string& text);
  bool is_to_take(const std::filesystem::path& file, double settled_s, QueuedJob& job);
  void add_claimed(std::vector<JobInfo>& all);
  void add_ended(std::vector<JobInfo>& all, std::size_t most_ended) const;

  std::filesystem::path folder_;
  uid_t owner_ = 0;
  std::map<std::string, Known> known_;          // by file
  std::map<std::string, std::string> remarks_;  // by what they are about
  std::vector<std::string> new_remarks_;
};

/// Seconds since 1970, of this host's clock.
double unix_seconds();

/// "ID@3-1-250.ini" as {"ID", {3, 1, 250}, false}, and "ID@3-1-250-reboot.ini" with true. None where a name is no
/// claimed job's.
struct ClaimedName {
  std::string id;
  StartCount count;
  bool host_went = false;  // with the service that began it last
};
std::optional<ClaimedName> claimed_name(const std::string& file_name);
std::string to_string(const ClaimedName& name);

}  // namespace hesspect
