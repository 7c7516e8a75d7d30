#include "hesspect/service/claims.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <span>
#include <system_error>

#include "hesspect/core/errors.h"
#include "hesspect/core/host.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "spool_files.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostClaims = 1000;

/// Looking through a long queue takes no more than one part in so many of the time.
constexpr double kLookingShare = 20;

std::string new_service_name() {
  std::string name;
  for (const char c : host_name()) name += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' ? c : '_';
  char rest[40];
  std::snprintf(rest, sizeof rest, "-%d-%06x", static_cast<int>(::getpid()), std::random_device{}() & 0xffffffU);
  return name + rest;
}

/// False where `from` has gone. Over NFS a rename that was carried out may be told as one of a file that is not there:
/// then `to` is.
bool move(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return true;
  const int why = errno;
  if (why == ENOENT) {
    struct stat status {};
    return ::lstat(from.c_str(), &status) != 0 && ::lstat(to.c_str(), &status) == 0;
  }
  throw InputError("cannot move " + quote(from.string()) + " to " + quote(to.parent_path().string()) + ": " +
                   std::strerror(why));
}

std::string sub_of(JobState state) { return to_string(state); }

void write_record(const Spool& spool, const JobInfo& info) {
  const std::string text = to_json(info) + "\n";
  write_file_atomically(spool.path(sub_of(info.state)) / (info.id + ".json"), std::as_bytes(std::span(text)));
}

bool has_ended(const Spool& spool, const std::string& id) {
  for (const char* const sub : {"done", "failed", "cancelled"})
    if (::access((spool.path(sub) / (id + ".ini")).c_str(), F_OK) == 0) return true;
  return false;
}

/// A name that no job before has had: a file that was dropped by hand may be called as one that has ended.
std::string free_id(const Spool& spool, const std::string& id) {
  std::string free = id;
  for (int i = 2; has_ended(spool, free); ++i) free = id + "." + std::to_string(i);
  return free;
}

constexpr const char* kSlurmMark = ".slurm";  // in a claimed folder: the job goes back to `slurm`

void make_mark(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) throw InputError("cannot write " + quote(file.string()) + ": " + std::strerror(errno));
  ::close(fd);
}

}  // namespace

Claims::Claims(Spool& spool, std::function<void()> cancelled)
    : spool_(spool), lease_(spool.path("claimed") / new_service_name(), [this, cancelled = std::move(cancelled)] {
        // Under the lock to the end: once a job is put away, nobody is told of it any more.
        const std::lock_guard<std::mutex> lock(at_work_mutex_);
        if (!at_work_.empty() && ::access((lease_.folder() / (at_work_ + ".cancel")).c_str(), F_OK) == 0) cancelled();
      }) {}

fs::path Claims::file_of(const Claim& claim) const { return lease_.folder() / claim.file; }

Claim Claims::claim_of(const ClaimedName& name, const std::string& sub) const {
  Claim claim;
  claim.id = name.id;
  claim.count = name.count;
  claim.host_went = name.host_went;
  claim.sub = sub;
  claim.file = to_string(name);
  try {
    claim.text = spool_.read_job_file(file_of(claim));
    claim.head = parse_job_head(claim.text, name.id + ".ini");
    claim.submitted = claim.head.submitted;
  } catch (const Error& error) {
    claim.wrong = error.what();
  }
  return claim;
}

std::optional<Claim> Claims::taken_over() {
  for (const std::string& name : names_in(lease_.folder(), kMostClaims)) {
    const std::optional<ClaimedName> claimed = claimed_name(name);
    if (!claimed) continue;
    const bool of_slurm = ::access((lease_.folder() / (claimed->id + kSlurmMark)).c_str(), F_OK) == 0;
    return claim_of(*claimed, of_slurm ? "slurm" : "incoming");
  }
  return std::nullopt;
}

std::optional<Claim> Claims::next(const std::string& only) {
  if (std::optional<Claim> claim = taken_over()) return claim;
  const std::string sub = only.empty() ? "incoming" : "slurm";
  std::optional<std::string> refused;
  for (bool is_new = look_unless_new(sub);; is_new = look(sub)) {
    while (!waiting_.empty()) {
      const QueuedJob job = std::move(waiting_.back());
      waiting_.pop_back();
      if (!only.empty() && job.id != only) continue;
      if (!is_new && !Spool::is_submitted_id(job.id)) continue;  // it may be another text since, which has to settle
      const ClaimedName name{free_id(spool_, job.id), {}, false};
      try {
        if (!only.empty()) make_mark(lease_.folder() / (name.id + kSlurmMark));  // first: see take_over
        if (!move(job.file, lease_.folder() / to_string(name))) continue;        // another service was faster
      } catch (const InputError& error) {
        refused = error.what();
        continue;
      }
      return claim_of(name, sub);
    }
    if (is_new) break;
  }
  if (refused) throw InputError(*refused);
  if (const std::string folder = spool_.path(sub).string(); ::access(folder.c_str(), R_OK | W_OK | X_OK) != 0)
    throw InputError("cannot look at " + quote(folder) + ": " + std::strerror(errno));
  return std::nullopt;
}

bool Claims::look(const std::string& sub) {
  const Timer timer;
  waiting_ = spool_.queued(sub, kSettled_s);
  std::ranges::reverse(waiting_);
  look_s_ = timer.elapsed_s();
  since_look_.reset();
  return true;
}

bool Claims::look_unless_new(const std::string& sub) {
  return since_look_.elapsed_s() > kLookingShare * look_s_ && look(sub);
}

bool Claims::is_any_left(const std::string& only) {
  const std::vector<QueuedJob> jobs = spool_.queued(only.empty() ? "incoming" : "slurm", 0);
  for (const QueuedJob& job : jobs)
    if (only.empty() || job.id == only) return true;
  // The one job may be held by an earlier start of it, whose end is not certain yet.
  for (const std::string& name : names_in(spool_.path("claimed"), only.empty() ? 0 : kMostClaims))
    for (const std::string& file : names_in(spool_.path("claimed") / name, kMostClaims))
      if (const std::optional<ClaimedName> claimed = claimed_name(file); claimed && claimed->id == only) return true;
  return taken_over().has_value();
}

std::string Claims::given_up(Claim& claim, std::int64_t products) {
  if (claim.count.starts > 0) claim.count.add_death(products, claim.host_went);
  if (!claim.count.is_enough(kMostDeaths)) return "";
  const bool by_deaths = claim.count.deaths >= kMostDeaths;
  return "the service died while this ran, " + (by_deaths ? "twice" : std::to_string(claim.count.starts) + " times");
}

void Claims::begin(Claim& claim) {
  const fs::path before = file_of(claim);
  Claim begun = claim;
  ++begun.count.starts;
  begun.host_went = false;
  begun.file = to_string(ClaimedName{begun.id, begun.count, false});
  if (!move(before, file_of(begun)))
    throw InputError("the job " + claim.id + " has gone from " + quote(lease_.folder().string()));
  claim = begun;
  sync_folder(lease_.folder());
  ::utimensat(AT_FDCWD, file_of(claim).c_str(), nullptr, AT_SYMLINK_NOFOLLOW);  // when it began
  const std::lock_guard<std::mutex> lock(at_work_mutex_);
  at_work_ = claim.id;
}

bool Claims::is_cancelled(const Claim& claim) const {
  return ::access((lease_.folder() / (claim.id + ".cancel")).c_str(), F_OK) == 0;
}

void Claims::finish(const Claim& claim, JobInfo info) {
  info.service = service();
  write_record(spool_, info);
  const fs::path to = spool_.path(sub_of(info.state));
  move(file_of(claim), to / (claim.id + ".ini"));
  sync_folder(to);
  std::error_code error;
  fs::remove(lease_.folder() / (claim.id + ".cancel"), error);
  fs::remove(lease_.folder() / (claim.id + kSlurmMark), error);
  if (info.state != JobState::kDone) {
    // A checkpoint that nobody will go on from; one in a folder that the job has named is its owner's.
    const fs::path folder = spool_.checkpoint_folder(claim.id);
    if (info.state == JobState::kCancelled) fs::remove_all(folder, error);
  }
  const std::lock_guard<std::mutex> lock(at_work_mutex_);
  at_work_.clear();
}

void Claims::put_back(const Claim& claim) {
  move(file_of(claim), spool_.path(claim.sub) / (claim.id + ".ini"));
  sync_folder(spool_.path(claim.sub));
  waiting_.clear();  // it is one of them again
  std::error_code error;
  fs::remove(lease_.folder() / (claim.id + kSlurmMark), error);
  const std::lock_guard<std::mutex> lock(at_work_mutex_);
  at_work_.clear();
}

std::vector<std::string> Claims::take_over(const std::string& only) {
  std::vector<std::string> told;
  for (const std::string& name : names_in(spool_.path("claimed"), kMostClaims)) {
    const fs::path folder = spool_.path("claimed") / name;
    if (name.starts_with(".") || folder == lease_.folder() || !lease_.is_abandoned(folder)) continue;
    const std::vector<std::string> files = names_in(folder, kMostClaims);
    const auto is_mark = [](const std::string& file) {
      return file.ends_with(".cancel") || file.ends_with(kSlurmMark);
    };
    // A job of Slurm's is started again by Slurm: services leave it, and its own service leaves all else.
    const bool of_slurm =
        std::ranges::any_of(files, [](const std::string& file) { return file.ends_with(kSlurmMark); });
    const auto is_only = [&](const std::string& file) {
      const std::optional<ClaimedName> claimed = claimed_name(file);
      return claimed && claimed->id == only;
    };
    if (only.empty() ? of_slurm : std::ranges::none_of(files, is_only)) continue;
    for (const std::string& file : files)
      if (is_mark(file)) move(folder / file, lease_.folder() / file);
    // In the job's name, for the lease goes; a service that dies before it begins the job leaves it there.
    const bool host_went = Lease::host_went(folder);
    for (const std::string& file : files) {
      std::optional<ClaimedName> job = claimed_name(file);
      if (!job) continue;
      job->host_went = job->host_went || host_went;
      if (move(folder / file, lease_.folder() / to_string(*job)))
        told.push_back("took over job " + job->id + " from the service " + name + ", which has gone" +
                       (host_went ? " with its host" : ""));
    }
    sync_folder(lease_.folder());  // before the other folder goes
    std::error_code error;
    fs::remove(folder / "lease", error);
    fs::remove(folder, error);  // stays where something else lies in it
  }
  return told;
}

std::string cancel_job(Spool& spool, const std::string& id) {
  if (!Spool::is_id(id)) throw UsageError(quote(id) + " is no job's id");
  const std::optional<JobInfo> found = spool.find(id);
  if (!found) throw UsageError("there is no job " + id + " in " + quote(spool.folder().string()));
  if (found->state == JobState::kQueued) {
    for (const char* const sub : {"incoming", "slurm"}) {
      if (!move(spool.path(sub) / (id + ".ini"), spool.path("cancelled") / (id + ".ini"))) continue;
      JobInfo info = *found;
      info.state = JobState::kCancelled;
      info.ended = unix_seconds();
      info.line = "cancelled before it began";
      write_record(spool, info);
      return "cancelled";
    }
    // A service has taken it since.
  }
  for (const std::string& service : names_in(spool.path("claimed"), kMostClaims)) {
    if (service.starts_with(".")) continue;
    for (const std::string& file : names_in(spool.path("claimed") / service, kMostClaims)) {
      const std::optional<ClaimedName> name = claimed_name(file);
      if (!name || name->id != id) continue;
      const fs::path mark = spool.path("claimed") / service / (id + ".cancel");
      make_mark(mark);
      return "is being stopped";
    }
  }
  const std::optional<JobInfo> now = spool.find(id);
  throw UsageError("the job " + id + " has ended: it is " + (now ? to_string(now->state) : "gone"));
}

}  // namespace hesspect
