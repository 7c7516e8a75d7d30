#include "hesspect/io/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <csignal>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>

#include "hesspect/core/errors.h"
#include "hesspect/core/sha256.h"
#include "io/checkpoint_rows.h"
#include "io/run_state.h"

namespace hesspect::checkpoint_test {
namespace {

using test::RunState;

namespace fs = std::filesystem;

class Checkpoint : public ::testing::Test {
 protected:
  Checkpoint() {
    std::string name = (fs::temp_directory_path() / "hesspect_ckp_XXXXXX").string();
    root_ = mkdtemp(name.data());
    path_ = root_ / "r.h5.checkpoint";
  }
  ~Checkpoint() override { fs::remove_all(root_); }

  std::vector<std::string> files(const fs::path& folder) const {
    std::vector<std::string> names;
    for (const auto& item : fs::directory_iterator(folder)) names.push_back(item.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  fs::path probe_folder() const { return path_ / "probe-000003"; }
  /// The first file of the probe whose name starts so.
  fs::path probe_file(const std::string& start) const {
    for (const auto& name : files(probe_folder()))
      if (name.starts_with(start)) return probe_folder() / name;
    ADD_FAILURE() << "no " << start;
    return {};
  }
  fs::path root_, path_;
};

std::string content_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void flip_byte(const fs::path& path, std::size_t at) {
  std::string content = content_of(path);
  ASSERT_LT(at, content.size());
  content[at] = static_cast<char>(content[at] ^ 1);
  std::ofstream(path, std::ios::binary) << content;
}

template <class E>
std::string message(const std::function<void()>& act) {
  try {
    act();
  } catch (const E& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::uint64_t bits(double value) { return std::bit_cast<std::uint64_t>(value); }

RunState sample(std::int64_t products = 7) {
  RunState s;
  s.text = "not UTF-8: \xff\xfe.h5";
  s.opaque = std::string("opaque\0\x80", 8);
  s.values = {-0.0, 5e-324, 1.0 / 3, -std::numeric_limits<double>::infinity(), std::nan("1")};
  s.values.resize(60, 2.0 / 3);
  s.fruit = {test::Apple{0.1}, test::Pear{}};
  s.colour = test::Colour::kRed;
  s.products = products;
  s.overwrite = true;
  return s;
}

TEST_F(Checkpoint, ARunStateComesBackBitForBit) {
  CheckpointFolder folder(path_);
  EXPECT_FALSE(folder.exists());
  std::vector<std::string> warnings;
  EXPECT_FALSE(folder.read_run<RunState>(warnings).has_value());
  folder.lock();
  EXPECT_FALSE(folder.exists());
  const RunState s = sample();
  folder.write_run(s);
  EXPECT_TRUE(folder.exists());
  const auto back = CheckpointFolder(path_ / "").read_run<RunState>(warnings);
  ASSERT_TRUE(back.has_value());
  EXPECT_TRUE(warnings.empty());
  EXPECT_EQ(back->run_id, s.run_id);
  EXPECT_EQ(back->text, s.text);
  EXPECT_EQ(back->opaque, s.opaque);
  ASSERT_EQ(back->values.size(), s.values.size());
  for (std::size_t i = 0; i < s.values.size(); ++i) EXPECT_EQ(bits(back->values[i]), bits(s.values[i])) << i;
  EXPECT_FALSE(back->maybe.has_value());
  ASSERT_EQ(back->fruit.size(), 2u);
  EXPECT_EQ(std::get<test::Apple>(back->fruit[0]).weight, 0.1);
  EXPECT_TRUE(std::holds_alternative<test::Pear>(back->fruit[1]));
  EXPECT_EQ(back->colour, test::Colour::kRed);
  EXPECT_EQ(back->products, 7);
  EXPECT_EQ(back->starts, 3);
  EXPECT_TRUE(back->overwrite);
}

/// Doubles of random bits: of all sizes, subnormal ones and NaNs among them.
TEST_F(Checkpoint, EveryDoubleComesBackBitForBit) {
  CheckpointFolder folder(path_);
  RunState s;
  auto& values = s.values;
  std::uint64_t x = 88172645463325252u;  // xorshift64
  for (int i = 0; i < 20000; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    values.push_back(std::bit_cast<double>(x));
    values.push_back(std::bit_cast<double>(x & 0x800fffffffffffffu));
  }
  folder.write_run(s);
  std::vector<std::string> warnings;
  const auto back = folder.read_run<RunState>(warnings)->values;
  ASSERT_EQ(back.size(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(bits(back[i]), bits(values[i])) << i;
}

TEST_F(Checkpoint, TheLastLineIsTheDigestOfTheRest) {
  CheckpointFolder(path_).write_run(sample());
  const std::string content = content_of(path_ / "run-000001.json");
  const std::size_t end = content.find('\n') + 1;
  EXPECT_EQ(content.substr(end), "\"sha256:" + sha256_bytes(content.data(), end) + "\"\n");
}

TEST_F(Checkpoint, TwoGenerationsOfARunAreKept) {
  CheckpointFolder folder(path_);
  folder.lock();
  for (int i = 1; i <= 4; ++i) folder.write_run(sample(i));
  EXPECT_EQ(files(path_), (std::vector<std::string>{"lock", "run-000003.json", "run-000004.json"}));
  std::vector<std::string> warnings;
  EXPECT_EQ(folder.read_run<RunState>(warnings)->products, 4);

  // A broken one is not one of the two.
  flip_byte(path_ / "run-000004.json", 20);
  folder.write_run(sample(5));
  EXPECT_EQ(files(path_), (std::vector<std::string>{"lock", "run-000003.json", "run-000005.json"}));
}

TEST_F(Checkpoint, ABrokenRunStateIsPassedOver) {
  CheckpointFolder folder(path_);
  folder.write_run(sample(1));
  folder.write_run(sample(2));
  const fs::path newest = path_ / "run-000002.json";
  const std::string whole = content_of(newest);
  const auto sealed = [](const std::string& line) {
    return line + "\n\"sha256:" + sha256_bytes((line + "\n").data(), line.size() + 1) + "\"\n";
  };
  const std::string line = whole.substr(0, whole.find('\n'));
  const auto replaced = [&](const std::string& what, const std::string& by) {
    std::string text = line;
    EXPECT_NE(text.find(what), std::string::npos) << what;
    return sealed(text.replace(text.find(what), what.size(), by));
  };
  ASSERT_EQ(sealed(line), whole);
  const std::string cut = "cut short or changed (its SHA-256 is wrong)";
  const std::vector<std::pair<std::string, std::string>> broken{
      {"", cut},
      {"\n", cut},
      {whole.substr(0, whole.size() / 2), cut},
      {whole.substr(0, whole.size() - 1), cut},
      {line + "\n", cut},
      {whole + "x", cut},
      {sealed("not JSON"), "not JSON"},
      {sealed("[]"), "hesspect_checkpoint is missing"},
      {replaced("\"hesspect_checkpoint\":4", "\"hesspect_checkpoint\":1"), "has checkpoint layout 1"},
      {replaced("\"kind\":\"run\"", "\"kind\":\"probe\""), "not a run state"},
      {replaced("\"products\":2", "\"products\":\"2\""), "products is not an integer"},
      {replaced("\"starts\":3", "\"start\":3"), "starts is missing"},
  };
  for (const auto& [content, why] : broken) {
    std::ofstream(newest, std::ios::binary) << content;
    std::vector<std::string> warnings;
    const auto state = folder.read_run<RunState>(warnings);
    ASSERT_TRUE(state.has_value());
    EXPECT_EQ(state->products, 1);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_TRUE(contains(warnings[0], newest.string()) && contains(warnings[0], why)) << warnings[0];
    EXPECT_TRUE(contains(warnings[0], "going on from run-000001.json")) << warnings[0];
  }
  for (std::size_t at = 0; at < whole.size(); at += 7) {
    std::ofstream(newest, std::ios::binary) << whole;
    flip_byte(newest, at);
    std::vector<std::string> warnings;
    ASSERT_EQ(folder.read_run<RunState>(warnings)->products, 1) << at;
  }
  fs::resize_file(path_ / "run-000001.json", 10);
  EXPECT_TRUE(folder.exists());
  std::vector<std::string> warnings;
  const std::string error = message<InputError>([&] { (void)folder.read_run<RunState>(warnings); });
  EXPECT_TRUE(contains(error, "holds no whole state") && contains(error, newest.string())) << error;
}

TEST_F(Checkpoint, RowsAreRightForAnyNumberOfRanks) {
  for (const int writers : {1, 2, 3, 5, 8}) {
    const fs::path path = root_ / std::to_string(writers);
    CheckpointFolder folder(path);
    ProbeManifest m = new_manifest(23, writers);  // 8 ranks of 3: the last is empty but for padding
    for (const int steps : {1, 4, 9}) add_generation(folder, m, steps);
    const auto manifests = CheckpointFolder(path).manifests(3, "5eed");
    ASSERT_EQ(manifests.size(), 2u);
    EXPECT_EQ(manifests[0].steps, 9);
    EXPECT_EQ(manifests[0].state, "after 9");
    EXPECT_EQ(manifests[1].steps, 4);
    for (const int readers : {1, 2, 3, 4, 7, 23, 30})
      for (const auto& manifest : manifests)
        EXPECT_TRUE(rows_are_right(CheckpointFolder(path), manifest, readers)) << writers << " " << readers;
    // Some rows, some entries.
    EXPECT_EQ(read_doubles(folder, manifests[0], "basis", 3, 3, 5, 7),
              (std::vector<double>{entry(3, 5), entry(3, 6), entry(4, 5), entry(4, 6), entry(5, 5), entry(5, 6)}));
    EXPECT_EQ(read_doubles(folder, manifests[0], "basis", 3, 1, 22, 26), (std::vector<double>{entry(3, 22), 0, 0, 0}));
    EXPECT_TRUE(read_doubles(folder, manifests[0], "basis", 3, 0, 0, 5).empty());
    EXPECT_THROW(folder.read_rows(manifests[0], "basis", 8, 3, 0, 5), InputError);
  }
}

TEST_F(Checkpoint, NarrowNumbersAreReadInTheirSize) {
  CheckpointFolder folder(path_);
  ProbeManifest m = new_manifest(5, 2);
  m.basis_element_bytes = 2;
  const std::string first = "aabbcc", second = "ddee\xff\xff";
  const std::vector<std::span<const std::byte>> rows{std::as_bytes(std::span(first))},
      more{std::as_bytes(std::span(second))};
  m.pieces = {folder.write_piece(3, "basis", 0, rows, 0, 2), folder.write_piece(3, "basis", 0, more, 1, 2)};
  folder.commit(m);
  const auto bytes = folder.read_rows(m, "basis", 0, 1, 1, 6);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), std::string("bbccddee\0\0", 10));
}

TEST_F(Checkpoint, RowsAreWrittenOnceAndPiecesPruned) {
  CheckpointFolder folder(path_);
  ProbeManifest m = new_manifest(10, 2);
  for (const int steps : {2, 4, 6, 8}) add_generation(folder, m, steps);
  const auto names = files(probe_folder());
  const auto count = [&](const std::string& start) {
    return std::count_if(names.begin(), names.end(), [&](const auto& name) { return name.starts_with(start); });
  };
  EXPECT_EQ(count("steps-"), 2);
  EXPECT_EQ(count("basis-"), 8);    // four generations, each new rows of two ranks
  EXPECT_EQ(count("running-"), 4);  // of the last two generations
  EXPECT_EQ(count("basis-000005-000007.rank-0001-of-0002."), 1);
  EXPECT_EQ(names.size(), 14u);
  const std::string piece = content_of(probe_file("basis-000005-000007.rank-0001"));
  EXPECT_EQ(piece.size(), 2u * 5 * 8);
  EXPECT_TRUE(probe_file("basis-000005-000007.rank-0001")
                  .string()
                  .ends_with("." + sha256_bytes(piece.data(), piece.size()).substr(0, 16)));
}

/// A run that had to go back to an earlier generation writes others after it: the unusable one must not crowd out one
/// of the two that are kept, nor may its pieces stay.
TEST_F(Checkpoint, AfterGoingBackTheUnusableGenerationGoes) {
  CheckpointFolder folder(path_);
  ProbeManifest m = new_manifest(10, 2);
  add_generation(folder, m, 2);
  ProbeManifest earlier = m;
  add_generation(folder, m, 8);
  flip_byte(probe_file("basis-000003-000009.rank-0000"), 5);
  EXPECT_THROW(rows_are_right(folder, m, 2), InputError);
  add_generation(folder, earlier, 5);
  const auto manifests = folder.manifests(3, "5eed");
  ASSERT_EQ(manifests.size(), 2u);
  EXPECT_EQ(manifests[0].steps, 5);
  EXPECT_TRUE(rows_are_right(folder, manifests[0], 3) && rows_are_right(folder, manifests[1], 1));
  for (const auto& name : files(probe_folder())) EXPECT_FALSE(name.starts_with("basis-000003-000009")) << name;
  EXPECT_FALSE(fs::exists(probe_folder() / "steps-000008.json"));

  // The same steps once more, now on another number of ranks: the newer one counts.
  ProbeManifest again = new_manifest(10, 3);
  add_generation(folder, again, 5);
  EXPECT_EQ(folder.manifests(3, "5eed").at(0).ranks, 3);
  EXPECT_TRUE(rows_are_right(folder, folder.manifests(3, "5eed")[0], 2));
  EXPECT_TRUE(rows_are_right(folder, folder.manifests(3, "5eed").at(1), 2));
}

TEST_F(Checkpoint, BrokenManifestsArePassedOver) {
  CheckpointFolder folder(path_);
  ProbeManifest m = new_manifest(10, 2);
  add_generation(folder, m, 2);
  add_generation(folder, m, 4);
  const auto newest = [&] {
    const auto all = folder.manifests(3, "5eed");
    return all.empty() ? -1 : all.front().steps;
  };
  const fs::path file = probe_folder() / "steps-000004.json";
  const std::string whole = content_of(file);
  const auto edited = [&](const std::string& what, const std::string& by) {  // with a right seal
    std::string line = whole.substr(0, whole.find('\n'));
    EXPECT_NE(line.find(what), std::string::npos) << what;
    line = line.replace(line.find(what), what.size(), by) + "\n";
    return line + "\"sha256:" + sha256_bytes(line.data(), line.size()) + "\"\n";
  };
  for (const std::string& content :
       {std::string(), whole.substr(0, 50), whole + "\n", edited("\"n\":10", "\"n\":0"), edited("\"n\":10", "\"n\":11"),
        edited("\"ranks\":2", "\"ranks\":0"), edited("\"ranks\":2", "\"ranks\":-1"),
        edited("\"probe\":3", "\"probe\":4"), edited("\"file\":\"basis", "\"file\":\"../basis"),
        edited("\"hesspect_checkpoint\":4", "\"hesspect_checkpoint\":7"),
        edited("\"basis_element_bytes\":8", "\"basis_element_bytes\":0"), edited("\"rank\":1", "\"rank\":2"),
        edited("\"rows\":3", "\"rows\":2305843009213693952")}) {
    std::ofstream(file, std::ios::binary) << content;
    EXPECT_EQ(newest(), 2) << content;
  }
  std::ofstream(file, std::ios::binary) << whole;
  EXPECT_EQ(newest(), 4);
  EXPECT_TRUE(folder.manifests(3, "another").empty());
  EXPECT_TRUE(folder.manifests(99, "5eed").empty());

  fs::resize_file(probe_file("basis-000003-000005.rank-0001"), 79);
  EXPECT_EQ(newest(), 2);
  fs::remove(probe_file("running-000000-000002.rank-0000"));
  fs::remove(probe_file("running-000000-000002.rank-0000"));
  EXPECT_EQ(newest(), -1);
  EXPECT_EQ(folder.probes("5eed"), (std::vector<std::int64_t>{3}));
}

TEST_F(Checkpoint, APieceWithAFlippedByteIsNamed) {
  CheckpointFolder folder(path_);
  ProbeManifest m = new_manifest(10, 2);
  add_generation(folder, m, 2);
  const fs::path piece = probe_file("basis-000000-000003.rank-0001");
  flip_byte(piece, 100);
  ASSERT_EQ(folder.manifests(3, "5eed").size(), 1u);
  const CheckpointFolder reader(path_);
  std::string error = message<InputError>([&] { (void)reader.read_rows(m, "basis", 0, 3, 0, 10); });
  EXPECT_TRUE(contains(error, piece.string()) && contains(error, "SHA-256 is wrong")) << error;
  EXPECT_EQ(read_doubles(reader, m, "basis", 0, 1, 0, 5).at(4), entry(0, 4));  // another piece
  flip_byte(piece, 100);
  EXPECT_TRUE(rows_are_right(reader, m, 2));
  fs::resize_file(piece, 8);
  error = message<InputError>([&] { (void)reader.read_rows(m, "basis", 0, 3, 0, 10); });
  EXPECT_TRUE(contains(error, piece.string()) && contains(error, "8 bytes, not 120")) << error;
  fs::remove(piece);
  error = message<InputError>([&] { (void)reader.read_rows(m, "basis", 0, 3, 0, 10); });
  EXPECT_TRUE(contains(error, piece.string()) && contains(error, "no such file")) << error;
}

TEST_F(Checkpoint, AFolderThatHostsDoNotShareIsRefused) {
  CheckpointFolder here(path_), there(root_ / "of another host");
  ProbeManifest m = new_manifest(10, 2);
  m.steps = 1;
  for (int rank = 0; rank < 2; ++rank) {
    const auto rows = shard_rows(10, 2, rank, 0, 2);
    m.pieces.push_back((rank == 0 ? here : there).write_piece(3, "basis", 0, bytes_of(rows), rank, 2));
  }
  const std::string error = message<InputError>([&] { here.commit(m); });
  EXPECT_TRUE(contains(error, m.pieces[1].file) && contains(error, "all hosts share")) << error;
  EXPECT_TRUE(here.manifests(3, "5eed").empty());
}

TEST_F(Checkpoint, OneRunAtATime) {
  auto first = std::make_unique<CheckpointFolder>(path_);
  first->lock();
  first->lock();
  CheckpointFolder second(path_);
  const std::string error = message<UsageError>([&] { second.lock(); });
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  EXPECT_TRUE(contains(error, path_.string()) && contains(error, host) && contains(error, std::to_string(getpid())))
      << error;
  first.reset();
  second.lock();
  EXPECT_THROW(CheckpointFolder(path_).lock(), UsageError);
  second.remove();
  EXPECT_FALSE(fs::exists(path_));
  second.lock();  // to start anew
  EXPECT_THROW(CheckpointFolder(path_).lock(), UsageError);
}

TEST_F(Checkpoint, LockingRemovesLeftOversAlone) {
  {
    CheckpointFolder folder(path_);
    folder.write_run(sample());
    ProbeManifest m = new_manifest(10, 2);
    add_generation(folder, m, 2);
    const auto rows = shard_rows(10, 1, 0, 0, 1);
    (void)folder.write_piece(8, "basis", 0, bytes_of(rows), 0, 1);  // never committed
  }
  const auto before = files(probe_folder());
  for (const char* name : {".run-000002.json.tmp-123", "probe-000003/.steps-000004.json.tmp-9",
                           "probe-000003/.basis-000003-000005.rank-0001-of-0002.tmp-77"})
    std::ofstream(path_ / name) << "x";
  const std::vector<std::string> foreign{"notes.txt", ".run-000002.json.swp", "run-2.json", "probe-000009"};
  for (const auto& name : foreign) std::ofstream(path_ / name) << "x";
  std::ofstream(probe_folder() / "mine") << "x";
  CheckpointFolder folder(path_);
  folder.lock();
  EXPECT_EQ(files(path_), (std::vector<std::string>{".run-000002.json.swp", "lock", "notes.txt", "probe-000003",
                                                    "probe-000009", "run-000001.json", "run-2.json"}));
  auto expected = before;
  expected.push_back("mine");
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(files(probe_folder()), expected);
  EXPECT_EQ(folder.probes("5eed"), (std::vector<std::int64_t>{3}));
  EXPECT_TRUE(rows_are_right(folder, folder.manifests(3, "5eed").at(0), 1));

  folder.remove();
  EXPECT_EQ(files(path_), (std::vector<std::string>{".run-000002.json.swp", "notes.txt", "probe-000003", "probe-000009",
                                                    "run-2.json"}));
  EXPECT_EQ(files(probe_folder()), (std::vector<std::string>{"mine"}));
}

/// A run whose removal was cut off after its states went: what it left is no part of the next run.
TEST_F(Checkpoint, ProbesOfNoRunAreRemoved) {
  {
    CheckpointFolder folder(path_);
    ProbeManifest m = new_manifest(10, 2);
    add_generation(folder, m, 2);
  }
  CheckpointFolder folder(path_);
  folder.lock();
  EXPECT_EQ(files(path_), (std::vector<std::string>{"lock"}));
}

TEST_F(Checkpoint, ProbesOfAnotherRunAreReplaced) {
  CheckpointFolder folder(path_);
  ProbeManifest old = new_manifest(10, 2);
  old.run_id = "0ld";
  add_generation(folder, old, 2);
  add_generation(folder, old, 9);
  EXPECT_TRUE(folder.probes("5eed").empty());
  ProbeManifest m = new_manifest(10, 2);
  add_generation(folder, m, 4);
  EXPECT_TRUE(folder.manifests(3, "0ld").empty());
  EXPECT_EQ(folder.manifests(3, "5eed").size(), 1u);
  EXPECT_EQ(files(probe_folder()).size(), 5u);
  folder.remove_probe(3);
  EXPECT_FALSE(fs::exists(probe_folder()));
  folder.remove_probe(3);
}

TEST_F(Checkpoint, WhatCannotBeRemovedIsNamed) {
  CheckpointFolder folder(path_);
  folder.write_run(sample());
  ProbeManifest m = new_manifest(10, 2);
  add_generation(folder, m, 2);
  fs::create_directory(probe_folder() / "steps-000009.json");
  const std::string error = message<InputError>([&] { folder.remove(); });
  EXPECT_TRUE(contains(error, "cannot remove '" + (probe_folder() / "steps-000009.json").string() + "'")) << error;
  EXPECT_FALSE(folder.exists());
  EXPECT_EQ(files(probe_folder()), (std::vector<std::string>{"steps-000009.json"}));
}

TEST_F(Checkpoint, FoldersThatCannotBe) {
  std::ofstream(root_ / "file") << "x";
  for (const fs::path& path : {root_ / "file", root_ / "file" / "below", fs::path("/proc/none")}) {
    CheckpointFolder folder(path);
    const std::string error = message<InputError>([&] { folder.lock(); });
    EXPECT_TRUE(contains(error, path.string())) << error;
    EXPECT_THROW(folder.write_run(sample()), InputError);
  }
  EXPECT_FALSE(CheckpointFolder(root_ / "file").exists());
}

TEST_F(Checkpoint, NoPermission) {
  if (geteuid() != 0) GTEST_SKIP() << "needs to be root, to become somebody else";
  CheckpointFolder(path_).write_run(sample());
  for (const auto& folder : {root_, path_}) fs::permissions(folder, static_cast<fs::perms>(0755));
  ASSERT_EQ(seteuid(65534), 0);
  CheckpointFolder folder(path_);
  const std::string locked = message<InputError>([&] { folder.lock(); });
  const std::string written = message<InputError>([&] { folder.write_run(sample(2)); });
  ASSERT_EQ(seteuid(0), 0);
  EXPECT_TRUE(contains(locked, (path_ / "lock").string()) && contains(locked, "Permission denied")) << locked;
  EXPECT_TRUE(contains(written, "run-000002.json") && contains(written, "Permission denied")) << written;
  EXPECT_EQ(files(path_), (std::vector<std::string>{"run-000001.json"}));
}

/// Runs `act` where files cannot grow beyond `bytes`: write() fails there as it does on a full disk.
void with_limited_files(rlim_t bytes, const std::function<void()>& act) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = bytes;
  setrlimit(RLIMIT_FSIZE, &small);
  act();
  setrlimit(RLIMIT_FSIZE, &before);
}

TEST_F(Checkpoint, AFullDiskLeavesTheEarlierGenerationsWhole) {
  CheckpointFolder folder(path_);
  folder.lock();
  folder.write_run(sample(1));
  ProbeManifest m = new_manifest(100, 2);
  add_generation(folder, m, 2);
  const auto before = files(path_), probe_before = files(probe_folder());

  std::string run_error, piece_error, commit_error;
  const auto rows = shard_rows(100, 2, 0, 3, 2);
  with_limited_files(500, [&] {
    run_error = message<InputError>([&] { folder.write_run(sample(2)); });
    piece_error = message<InputError>([&] { (void)folder.write_piece(3, "basis", 3, bytes_of(rows), 0, 2); });
  });
  EXPECT_TRUE(contains(run_error, "run-000002.json': File too large")) << run_error;
  EXPECT_TRUE(contains(piece_error, "basis-000003-000005.rank-0000-of-0002': File too large")) << piece_error;
  EXPECT_EQ(files(path_), before);
  EXPECT_EQ(files(probe_folder()), probe_before);

  ProbeManifest next = m;
  next.steps = 4;
  with_limited_files(500, [&] { commit_error = message<InputError>([&] { folder.commit(next); }); });
  EXPECT_TRUE(contains(commit_error, "steps-000004.json': File too large")) << commit_error;
  EXPECT_EQ(files(probe_folder()), probe_before);
  std::vector<std::string> warnings;
  EXPECT_EQ(folder.read_run<RunState>(warnings)->products, 1);
  EXPECT_TRUE(rows_are_right(folder, folder.manifests(3, "5eed").at(0), 3));
}

}  // namespace
}  // namespace hesspect::checkpoint_test
