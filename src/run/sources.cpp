#include "hesspect/run/sources.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <numeric>
#include <utility>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/sha256.h"

namespace hesspect {
namespace {

namespace fs = std::filesystem;

std::string absolute_name(const fs::path& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  return (error ? path : absolute).string();
}

/// @param stop  of a run that goes on meanwhile and has read the files before: where one is gone or changed now, the
/// run
///              is still worth keeping, and an empty digest says so. nullptr: that throws InputError
std::vector<FileDigest> hashed(const std::vector<std::pair<std::int64_t, fs::path>>& files,
                               const std::atomic<bool>* stop) {
  std::vector<FileDigest> found;
  for (const auto& [file, path] : files) {
    found.push_back({file, ""});
    try {
      found.back().sha256 = sha256_file(path, stop);
    } catch (const InputError&) {
      if (stop == nullptr) throw;
    }
  }
  return found;
}

SourceFile size_and_time(const fs::path& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  const auto changed = fs::last_write_time(path, error).time_since_epoch().count();
  return {absolute_name(path), std::to_string(bytes) + " bytes of " + std::to_string(changed)};
}

/// As lines: the file's place, a space, its digest.
std::string text_of(const std::vector<FileDigest>& digests) {
  std::string text;
  for (const FileDigest& one : digests) text += std::to_string(one.file) + ' ' + one.sha256 + '\n';
  return text;
}

std::vector<FileDigest> digests_from(const std::string& text) {
  std::vector<FileDigest> digests;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t space = text.find(' ', at), end = text.find('\n', at);
    digests.push_back({std::stoll(text.substr(at, space - at)), text.substr(space + 1, end - space - 1)});
    at = end + 1;
  }
  return digests;
}

/// The files, by their places, that this rank hashes. Rank 0's sizes decide. Collective.
std::vector<std::pair<std::int64_t, fs::path>> share_of(const std::vector<fs::path>& files, Communicator& world) {
  std::vector<std::int64_t> bytes;
  for (const fs::path& path : files) {
    std::error_code error;
    const auto size = fs::file_size(path, error);
    bytes.push_back(error ? 0 : static_cast<std::int64_t>(size));
  }
  const std::vector<int> of_file = hashing_ranks(world.of_rank0(bytes), world.size());
  std::vector<std::pair<std::int64_t, fs::path>> own;
  for (std::size_t i = 0; i < files.size(); ++i)
    if (of_file[i] == world.rank()) own.emplace_back(static_cast<std::int64_t>(i), files[i]);
  return own;
}

}  // namespace

bool is_hashed(const SourceFile& file) { return file.sha256.find(' ') == std::string::npos; }

std::vector<int> hashing_ranks(const std::vector<std::int64_t>& bytes, int ranks) {
  std::vector<std::size_t> order(bytes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return bytes[a] > bytes[b]; });
  std::vector<std::int64_t> load(static_cast<std::size_t>(ranks), 0);
  std::vector<int> of_file(bytes.size(), 0);
  for (const std::size_t file : order) {
    const auto least = std::ranges::min_element(load);
    of_file[file] = static_cast<int>(least - load.begin());
    *least += bytes[file] + 1;  // files without a byte are shared out too
  }
  return of_file;
}

std::vector<std::string> hash_in_parts(const std::vector<fs::path>& files, Communicator& world) {
  const auto own = share_of(files, world);
  const std::string text = agreed(world, [&] { return text_of(hashed(own, nullptr)); });
  std::vector<std::string> digests(files.size());
  for (const std::string& part : world.all_gather_bytes(text))
    for (const FileDigest& one : digests_from(part)) digests.at(static_cast<std::size_t>(one.file)) = one.sha256;
  return digests;
}

SourceHashing::SourceHashing(fs::path model, std::vector<fs::path> weights, fs::path data, Communicator& world) {
  unhashed_.model.push_back(size_and_time(model));
  for (const fs::path& path : weights) unhashed_.weights.push_back(size_and_time(path));
  unhashed_.data.push_back(size_and_time(data));
  hashed_ = unhashed_;
  files_.push_back(std::move(model));
  std::ranges::move(weights, std::back_inserter(files_));
  files_.push_back(std::move(data));
  missing_ = files_.size();
  is_known_.assign(files_.size(), false);
  auto own = share_of(files_, world);
  try {
    agree(world, [&] {
      mine_ = std::async(std::launch::async, [this, own = std::move(own)] { return hashed(own, &stop_); }).share();
    });
  } catch (...) {
    stop_ = true;
    throw;
  }
}

bool SourceHashing::is_done() const { return mine_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

SourceFile& SourceHashing::place(std::int64_t file) {
  const auto at = static_cast<std::size_t>(file);
  if (at == 0) return hashed_.model.front();
  return at + 1 == files_.size() ? hashed_.data.front() : hashed_.weights[at - 1];
}

void SourceHashing::add(const std::vector<FileDigest>& found) {
  for (const FileDigest& one : found) {
    if (one.file < 0 || one.file >= std::ssize(files_))
      throw InputError("a digest of file " + std::to_string(one.file) + ", where the run has " +
                       std::to_string(files_.size()));
    place(one.file).sha256 = one.sha256;
    std::vector<bool>::reference is_known = is_known_[static_cast<std::size_t>(one.file)];
    if (!is_known) --missing_;
    is_known = true;
  }
}

std::vector<FileDigest> SourceHashing::of_group(Communicator& group) const {
  std::vector<FileDigest> all;
  const std::string text = agreed(group, [&] { return text_of(mine()); });
  for (const std::string& part : group.all_gather_bytes(text))
    std::ranges::move(digests_from(part), std::back_inserter(all));
  return all;
}

void SourceHashing::gather(Communicator& world) {
  if (is_gathered_) return;
  add(of_group(world));
  is_gathered_ = true;
}

void SourceHashing::gather_if_done(Communicator& world) {
  if (!is_gathered_ && !world.any(!is_done())) gather(world);
}

}  // namespace hesspect
