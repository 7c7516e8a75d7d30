#include "hesspect/service/lease.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <sstream>
#include <system_error>

#include "hesspect/core/errors.h"
#include "hesspect/core/start_count.h"
#include "hesspect/core/text.h"
#include "hesspect/io/atomic_file.h"
#include "spool_files.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string first_line(const fs::path& file) {
  std::string line;
  std::getline(std::ifstream(file), line);
  return line;
}

std::string process_space() {
  std::error_code error;
  return fs::read_symlink("/proc/self/ns/pid", error).string();
}

/// When a process was started, in ticks since the host was; empty where there is none, or only its remains.
std::string start_of(long process) {
  const std::string line = first_line("/proc/" + std::to_string(process) + "/stat");
  const auto behind_name = line.rfind(')');  // a name may hold anything
  if (behind_name == std::string::npos) return "";
  std::istringstream fields(line.substr(behind_name + 1));
  std::string field;
  for (int i = 3; i <= 22 && fields >> field; ++i)
    if (i == 3 && (field == "Z" || field == "X")) return "";
  return field;
}

std::string own_text() {
  const Boot boot = this_boot();
  const json all = {{"host", boot.host},
                    {"boot", boot.id},
                    {"processes", process_space()},
                    {"process", static_cast<long>(::getpid())},
                    {"start", start_of(::getpid())}};
  return all.dump() + "\n";
}

/// What a lease says of who has made it. Fields that it lacks are empty.
struct Holder {
  Boot boot;
  std::string processes, start;
  long process = 0;
};

Holder holder_in(const std::string& text) {
  const json held = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto field = [&](const char* name) {
    return held.is_object() && held.contains(name) && held[name].is_string() ? held[name].get<std::string>()
                                                                             : std::string();
  };
  const bool has_process = held.is_object() && held.contains("process") && held["process"].is_number_integer();
  return {{field("host"), field("boot")},
          field("processes"),
          field("start"),
          has_process ? held["process"].get<long>() : 0};
}

std::optional<double> modified_s(const fs::path& file) {
  struct stat status {};
  if (::lstat(file.c_str(), &status) != 0) return std::nullopt;
  return static_cast<double>(status.st_mtim.tv_sec) + 1e-9 * static_cast<double>(status.st_mtim.tv_nsec);
}

}  // namespace

Lease::Lease(const fs::path& folder, std::function<void()> each) : folder_(folder), each_(std::move(each)) {
  const fs::path made = folder.parent_path() / ("." + folder.filename().string());
  std::error_code error;
  try {
    make_folders(made);
    const std::string text = own_text();
    write_file_atomically(made / "lease", std::as_bytes(std::span(text)));
  } catch (const InputError&) {
    fs::remove_all(made, error);
    throw;
  }
  fs::rename(made, folder, error);
  if (error) throw InputError("cannot make " + quote(folder.string()) + ": " + error.message());
  sync_folder(folder.parent_path());
  thread_ = std::thread([this] { keep(); });
}

Lease::~Lease() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ends_ = true;
  }
  changed_.notify_one();
  thread_.join();
  // With what is left in the folder (a job that could not be put anywhere) the lease stays, for the next to find.
  std::error_code error;
  bool has_jobs = false;
  for (const std::string& name : names_in(folder_, 1000)) has_jobs = has_jobs || name.ends_with(".ini");
  if (!has_jobs) fs::remove_all(folder_, error);
}

bool Lease::touch() const {
  // No time is given: a file server then takes its own.
  return ::utimensat(AT_FDCWD, (folder_ / "lease").c_str(), nullptr, AT_SYMLINK_NOFOLLOW) == 0;
}

void Lease::keep() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (double since_touch_s = 0; !ends_;) {
    changed_.wait_for(lock, std::chrono::seconds(1));
    if (ends_) return;
    lock.unlock();
    since_touch_s += 1;
    if (since_touch_s >= kTouchEvery_s && touch()) since_touch_s = 0;
    each_();
    lock.lock();
  }
}

bool Lease::is_abandoned(const fs::path& other) const {
  const fs::path file = other / "lease";
  const std::optional<std::string> text = small_text(file);
  const Holder held = holder_in(text.value_or(""));
  const Boot boot = this_boot();
  const bool is_near = held.boot.host == boot.host && !held.processes.empty() && held.processes == process_space();
  if (is_near && !boot.id.empty()) {
    if (held.boot.id != boot.id) return true;  // the host has been started anew
    const std::string start = held.process > 0 ? start_of(held.process) : "";
    return start.empty() || start != held.start;
  }
  const std::optional<double> theirs = modified_s(text ? file : other);
  if (!theirs || !touch()) return false;
  const std::optional<double> now = modified_s(folder_ / "lease");
  return now && *now - *theirs > kLostAfter_s;
}

bool Lease::host_went(const fs::path& other) {
  return is_started_anew(holder_in(small_text(other / "lease").value_or("")).boot, this_boot());
}

}  // namespace hesspect
