// The jobs that a service has taken, and where they go from there.
//
//   Claims claims(spool, [&](const std::string& id) { … });      // a job at work is to stop
//   while (std::optional<Claim> claim = claims.next("")) {
//     claims.begin(*claim);                                      // from here on a death counts
//     …
//     claims.finish(*claim, info);                               // or put_back(*claim)
//   }
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/core/timer.h"
#include "hesspect/service/lease.h"
#include "hesspect/service/spool.h"

namespace hesspect {

/// One job of this service.
struct Claim {
  std::string id;
  StartCount count;
  bool host_went = false;  // with the service that began it last
  double submitted = 0;
  JobHead head;
  std::string sub;   // the folder that it goes back to: "incoming" or "slurm"
  std::string text;  // of its file; empty where it may not be taken, then `wrong` says why
  std::string wrong;
  std::string file;  // its name in the service's folder
};

class Claims {
 public:
  /// Of services that ran a job, one after the other and without a gain between them: then it fails.
  static constexpr std::int64_t kMostDeaths = 2;
  /// A file that 'submit' has not named is taken when it has been as it is for so long.
  static constexpr double kSettled_s = 2;

  /// @param cancelled  called by the lease's thread when the job at work is to stop
  /// @throws InputError where the service's folder can't be made
  Claims(Spool& spool, std::function<void()> cancelled);

  /// The next job, which is this service's from here on: first what it has taken over from services that have gone.
  /// @param only  the id of the one job of the folder `slurm` that is asked for; empty: any in `incoming`
  /// @throws InputError where jobs are there that can't be taken (no permission, a disk that is full)
  std::optional<Claim> next(const std::string& only);
  /// Whether a job waits, also one whose file has not settled.
  bool is_any_left(const std::string& only);

  /// Whether it may be begun. Where it has been begun before, its last service has died with it: in vain, if it has no
  /// more products now than it had at that start, and its host still runs.
  /// @param products  that its checkpoint keeps
  /// @return why it is given up; empty: it is not
  static std::string given_up(Claim& claim, std::int64_t products);
  /// Notes a start, before anything is done; that outlives a power cut. @throws InputError
  void begin(Claim& claim);
  /// Whether somebody wants the job at work to stop.
  bool is_cancelled(const Claim& claim) const;
  /// Into done, failed or cancelled, as the state says. A job that has been taken away meanwhile is the other's.
  /// @throws InputError where it can't be written: it is still this service's
  void finish(const Claim& claim, JobInfo info);
  /// Back to where it waited; it keeps its place. @throws InputError
  void put_back(const Claim& claim);
  /// Takes over what services have that have gone. @return what is to be told
  std::vector<std::string> take_over(const std::string& only);

  std::string service() const { return lease_.folder().filename().string(); }

 private:
  std::filesystem::path file_of(const Claim& claim) const;
  std::optional<Claim> taken_over();
  Claim claim_of(const ClaimedName& name, const std::string& sub) const;
  /// What waits, anew. @return true
  bool look(const std::string& sub);
  /// Unless the last look was as good as now. @return whether it has looked
  bool look_unless_new(const std::string& sub);

  Spool& spool_;
  std::mutex at_work_mutex_;
  std::string at_work_;  // the id; under at_work_mutex_
  Lease lease_;
  std::vector<QueuedJob> waiting_;  // as it was at the last look, the next one last
  Timer since_look_;
  double look_s_ = 0;  // that it took
};

/// Asks the service that has a job to stop it, or takes a waiting one out of the queue.
/// @return what happened, for people: "cancelled", "is being stopped"
/// @throws UsageError: there is no such job, or it has ended; InputError
std::string cancel_job(Spool& spool, const std::string& id);

}  // namespace hesspect
