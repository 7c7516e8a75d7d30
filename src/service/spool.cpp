#include "hesspect/service/spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <random>
#include <span>
#include <system_error>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "spool_files.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestId = 100;
constexpr const char* kEnding = ".ini";
constexpr const char* kHostWent = "-reboot";

std::int64_t nanoseconds(const timespec& time) { return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

std::optional<std::string> id_of(const std::string& file_name) {
  if (!file_name.ends_with(kEnding)) return std::nullopt;
  const std::string id = file_name.substr(0, file_name.size() - std::strlen(kEnding));
  return Spool::is_id(id) ? std::optional(id) : std::nullopt;
}

bool is_before(const QueuedJob& a, const QueuedJob& b) {
  if (a.head.priority != b.head.priority) return a.head.priority > b.head.priority;
  if (a.arrived != b.arrived) return a.arrived < b.arrived;
  return a.id < b.id;
}

JobInfo info_of(const std::string& id, const JobHead& head, JobState state) {
  JobInfo job;
  job.id = id;
  job.name = head.name;
  job.command = to_string(head.command);
  job.state = state;
  job.priority = head.priority;
  job.submitted = head.submitted;
  return job;
}

}  // namespace

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::vector<std::string> names_in(const fs::path& folder, std::size_t most) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end && names.size() < most;
       entry.increment(error))
    names.push_back(entry->path().filename().string());
  return names;
}

/// The first bytes of an open file, which is closed.
std::string taken_from(int fd) {
  std::string text(Spool::kMostBytes, '\0');
  std::size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = ::read(fd, text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    filled += static_cast<std::size_t>(count);
  }
  ::close(fd);
  text.resize(filled);
  return text;
}

std::optional<std::string> small_text(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  return fd < 0 ? std::nullopt : std::optional(taken_from(fd));
}

std::optional<ClaimedName> claimed_name(const std::string& file_name) {
  if (!file_name.ends_with(kEnding)) return std::nullopt;
  const std::string stem = file_name.substr(0, file_name.size() - std::strlen(kEnding));
  const auto at = stem.rfind('@');
  if (at == std::string::npos || !Spool::is_id(stem.substr(0, at))) return std::nullopt;
  ClaimedName name{stem.substr(0, at), {}, stem.ends_with(kHostWent)};
  const char* place = stem.data() + at;  // of the mark before a number
  const char* const end = stem.data() + stem.size() - (name.host_went ? std::strlen(kHostWent) : 0);
  for (std::int64_t* const number : {&name.count.starts, &name.count.deaths, &name.count.kept}) {
    if (place == end || (number != &name.count.starts && *place != '-')) return std::nullopt;
    const auto [read, error] = std::from_chars(place + 1, end, *number);
    if (error != std::errc() || *number < 0) return std::nullopt;
    place = read;
  }
  return place == end ? std::optional(name) : std::nullopt;
}

std::string to_string(const ClaimedName& name) {
  return name.id + "@" + std::to_string(name.count.starts) + "-" + std::to_string(name.count.deaths) + "-" +
         std::to_string(name.count.kept) + (name.host_went ? kHostWent : "") + kEnding;
}

const std::vector<std::string>& Spool::sub_folders() {
  static const std::vector<std::string> folders = {"incoming", "slurm",     "claimed", "done",
                                                   "failed",   "cancelled", "log",     "checkpoints"};
  return folders;
}

bool Spool::is_submitted_id(const std::string& id) {
  constexpr const char* kForm = "00000000-000000-000-xxxxxx";
  if (id.size() != std::strlen(kForm)) return false;
  for (std::size_t i = 0; i < id.size(); ++i) {
    const bool fits = kForm[i] == '-'   ? id[i] == '-'
                      : kForm[i] == '0' ? std::isdigit(static_cast<unsigned char>(id[i])) != 0
                                        : std::isxdigit(static_cast<unsigned char>(id[i])) != 0;
    if (!fits) return false;
  }
  return true;
}

bool Spool::is_id(const std::string& text) {
  const auto is_plain = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  if (text.empty() || text.size() > kLongestId || !is_plain(text.front())) return false;
  return std::ranges::all_of(text, [&](char c) { return is_plain(c) || c == '.' || c == '_' || c == '-'; });
}

std::string Spool::new_id() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  std::tm fields{};
  gmtime_r(&now.tv_sec, &fields);
  char time[32], id[64];
  std::strftime(time, sizeof time, "%Y%m%d-%H%M%S", &fields);
  std::snprintf(id, sizeof id, "%s-%03d-%06x", time, static_cast<int>(now.tv_nsec / 1'000'000),
                std::random_device{}() & 0xffffffU);
  return id;
}

void Spool::make(const fs::path& folder) {
  try {
    make_folders(folder);
    for (const std::string& sub : sub_folders()) make_folders(folder / sub);
  } catch (const InputError& error) {
    throw InputError("cannot make the spool " + quote(folder.string()) + ": " + error.what());
  }
  sync_folder(folder);  // somebody else may have made one of them, and not have come to this
}

Spool::Spool(const fs::path& folder) {
  std::error_code error;
  folder_ = fs::canonical(folder, error);
  if (error)
    throw InputError("--spool " + quote(folder.string()) + ": " + error.message() +
                     "; 'hesspect serve' and 'submit' make one");
  const auto check = [&](const fs::path& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0)
      throw InputError("--spool " + quote(folder_.string()) + ": cannot look at " + quote(path.string()) + ": " +
                       std::strerror(errno));
    if (!S_ISDIR(status.st_mode))
      throw InputError("--spool " + quote(folder_.string()) + ": " + quote(path.string()) + " is no folder");
    if (status.st_uid != ::geteuid())
      throw UsageError("--spool " + quote(folder_.string()) + ": " + quote(path.string()) + " belongs to user " +
                       std::to_string(status.st_uid) + ", not to this one (" + std::to_string(::geteuid()) +
                       "): everybody has a spool of their own");
    if ((status.st_mode & S_IWOTH) != 0)
      throw UsageError("--spool " + quote(folder_.string()) + ": everybody may write to " + quote(path.string()) +
                       ", and so decide what runs as you: chmod o-w");
  };
  check(folder_);
  owner_ = ::geteuid();
  for (const std::string& sub : sub_folders())
    if (::access(path(sub).c_str(), F_OK) == 0 || errno != ENOENT) check(path(sub));
}

fs::path Spool::log_file(const std::string& id) const { return path("log") / (id + ".log"); }
fs::path Spool::checkpoint_folder(const std::string& id) const { return path("checkpoints") / id; }
fs::path Spool::result_file(const std::string& id) const { return path("done") / (id + ".h5"); }

std::string Spool::add(const JobOptions& job, const std::string& sub) const {
  if (names_in(path(sub), kMostQueued).size() >= kMostQueued)
    throw UsageError("the queue " + quote(path(sub).string()) + " is full: " + std::to_string(kMostQueued) +
                     " jobs wait in it");
  JobOptions stamped = job;
  stamped.head.submitted = unix_seconds();
  const std::string text = job_text(stamped), id = new_id();
  if (text.size() > kMostBytes)
    throw UsageError("the job has " + std::to_string(text.size()) + " bytes of options; at most " +
                     std::to_string(kMostBytes) + " are taken");
  write_file_atomically(path(sub) / (id + kEnding), std::as_bytes(std::span(text)));
  return id;
}

void Spool::remark(const std::string& about, const std::string& text) {
  std::string& before = remarks_[about];
  if (before == text) return;
  before = text;
  new_remarks_.push_back(text);
}

std::vector<std::string> Spool::take_remarks() { return std::exchange(new_remarks_, {}); }

std::string Spool::read_job_file(const fs::path& file) const {
  const std::string name = quote(file.string());
  const int fd = ::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (fd < 0)
    throw InputError(errno == ELOOP ? name + " is a symbolic link, and no job"
                                    : "cannot read " + name + ": " + std::strerror(errno));
  struct stat status {};
  const bool is_known = ::fstat(fd, &status) == 0;
  std::string wrong;
  if (!is_known)
    wrong = std::string("cannot be looked at: ") + std::strerror(errno);
  else if (!S_ISREG(status.st_mode))
    wrong = "is no regular file";
  else if (status.st_uid != owner_)
    wrong = "belongs to user " + std::to_string(status.st_uid) + ", and the spool to " + std::to_string(owner_);
  else if (status.st_nlink > 1)
    wrong = "has " + std::to_string(status.st_nlink) + " names (hard links): one is expected";
  else if (static_cast<std::size_t>(status.st_size) > kMostBytes)
    wrong = "has " + std::to_string(status.st_size) + " bytes; at most " + std::to_string(kMostBytes) + " are taken";
  if (wrong.empty()) return taken_from(fd);
  ::close(fd);
  throw InputError(name + " " + wrong);
}

bool Spool::is_to_take(const fs::path& file, double settled_s, QueuedJob& job) {
  struct stat status {};
  if (::lstat(file.c_str(), &status) != 0) return false;  // another service was faster
  const std::int64_t changed_ns = nanoseconds(status.st_mtim);
  if (!is_submitted_id(job.id)) {
    // The file server's clock against this host's may be wrong by more than this: then the file is taken early or late,
    // and what is not whole yet fails with a line that says so.
    const double age_s = unix_seconds() - 1e-9 * static_cast<double>(changed_ns);
    if (age_s >= 0 && age_s < settled_s) return false;
  }
  Known& known = known_[file.filename().string()];
  if (known.inode != status.st_ino || known.changed_ns != changed_ns || known.bytes != status.st_size) {
    std::string text;
    try {
      text = read_job_file(file);
    } catch (const InputError& error) {
      known_.erase(file.filename().string());
      if (::access(file.c_str(), F_OK) == 0) remark(file.string(), std::string("left alone: ") + error.what());
      return false;
    }
    known = {status.st_ino, changed_ns, status.st_size, {}};
    try {
      known.head = parse_job_head(text, file.string());
    } catch (const UsageError&) {  // it is taken, and fails with this line
    }
  }
  job.head = known.head;
  job.arrived = job.head.submitted > 0 ? job.head.submitted : 1e-9 * static_cast<double>(changed_ns);
  return true;
}

std::vector<QueuedJob> Spool::queued(const std::string& sub, double settled_s) {
  const fs::path folder = path(sub);
  std::vector<std::string> names = names_in(folder, kMostQueued);
  if (names.size() >= kMostQueued)
    remark(folder.string(),
           "more than " + std::to_string(kMostQueued) + " files in " + quote(folder.string()) + ": those beyond wait");
  std::vector<QueuedJob> jobs;
  for (const std::string& name : names) {
    const std::optional<std::string> id = id_of(name);
    if (!id) {
      const bool is_ours =
          name.starts_with(".") || (sub == "slurm" && (name.ends_with(".number") || name.ends_with(".array")));
      if (!is_ours)
        remark((folder / name).string(),
               "left alone: " + quote((folder / name).string()) + " is no job: ID.ini is expected");
      continue;
    }
    QueuedJob job{*id, folder / name, {}, 0};
    if (is_to_take(job.file, settled_s, job)) jobs.push_back(std::move(job));
  }
  if (known_.size() > 2 * names.size() + 100) known_.clear();  // of jobs that have gone
  std::ranges::sort(jobs, is_before);
  return jobs;
}

void Spool::add_claimed(std::vector<JobInfo>& all) {
  for (const std::string& service : names_in(path("claimed"), kMostQueued)) {
    if (service.starts_with(".")) continue;
    for (const std::string& name : names_in(path("claimed") / service, kMostQueued)) {
      const std::optional<ClaimedName> claimed = claimed_name(name);
      if (!claimed) continue;
      const fs::path file = path("claimed") / service / name;
      JobHead head;
      try {
        head = parse_job_head(small_text(file).value_or(""), file.string());
      } catch (const UsageError&) {
      }
      JobInfo job = info_of(claimed->id, head, JobState::kRunning);
      job.service = service;
      job.starts = claimed->count.starts;
      struct stat status {};
      if (claimed->count.starts > 0 && ::lstat(file.c_str(), &status) == 0)
        job.started = 1e-9 * static_cast<double>(nanoseconds(status.st_mtim));  // touched as it began
      all.push_back(std::move(job));
    }
  }
}

void Spool::add_ended(std::vector<JobInfo>& all, std::size_t most_ended) const {
  std::vector<std::pair<std::int64_t, fs::path>> records;
  for (const char* const sub : {"done", "failed", "cancelled"})
    for (const std::string& name : names_in(path(sub), SIZE_MAX)) {
      if (!id_of(name)) continue;
      struct stat status {};
      const fs::path file = path(sub) / (name.substr(0, name.size() - std::strlen(kEnding)) + ".json");
      if (::lstat(file.c_str(), &status) == 0) records.emplace_back(nanoseconds(status.st_mtim), file);
    }
  std::ranges::sort(records);
  if (records.size() > most_ended)
    records.erase(records.begin(), records.end() - static_cast<std::ptrdiff_t>(most_ended));
  for (const auto& [time, file] : records) try {
      all.push_back(job_info_from_json(small_text(file).value_or("")));
    } catch (const InputError&) {  // not ours
    }
}

std::vector<JobInfo> Spool::jobs(std::size_t most_ended) {
  std::vector<JobInfo> all;
  std::vector<JobInfo> ended;
  add_ended(ended, most_ended);
  for (const char* const sub : {"incoming", "slurm"})
    for (const QueuedJob& job : queued(sub, 0)) {
      JobInfo info = info_of(job.id, job.head, JobState::kQueued);
      if (info.submitted == 0) info.submitted = job.arrived;
      if (sub == std::string("slurm")) info.service = small_text(path(sub) / (job.id + ".number")).value_or("slurm");
      all.push_back(std::move(info));
    }
  add_claimed(all);
  all.insert(all.end(), ended.begin(), ended.end());
  return all;
}

std::optional<JobInfo> Spool::find(const std::string& id) {
  if (!is_id(id)) return std::nullopt;
  // Twice, for a job may go from one folder to the next while they are looked through.
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (const char* const sub : {"incoming", "slurm"}) {
      QueuedJob job{id, path(sub) / (id + kEnding), {}, 0};
      if (!is_to_take(job.file, 0, job)) continue;
      JobInfo info = info_of(id, job.head, JobState::kQueued);
      if (info.submitted == 0) info.submitted = job.arrived;
      if (sub == std::string("slurm")) info.service = small_text(path(sub) / (id + ".number")).value_or("slurm");
      return info;
    }
    std::vector<JobInfo> claimed;
    add_claimed(claimed);
    for (JobInfo& job : claimed)
      if (job.id == id) return std::move(job);
    for (const char* const sub : {"done", "failed", "cancelled"}) {
      if (::access((path(sub) / (id + kEnding)).c_str(), F_OK) != 0) continue;
      if (const auto text = small_text(path(sub) / (id + ".json"))) return job_info_from_json(*text);
    }
  }
  return std::nullopt;
}

}  // namespace hesspect
