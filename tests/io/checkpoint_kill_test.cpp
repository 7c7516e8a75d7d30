// A run that is killed at any moment leaves its last committed generation whole.
//
// A child process plays a run: it goes on from what the folder holds, writes generations as fast as it can, and says
// through a pipe what it has committed. It is killed somewhere in its next generation, again and again in one folder.
// What it had said must be there, and every row right.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <limits>
#include <random>
#include <thread>

#include "hesspect/io/checkpoint.h"
#include "io/checkpoint_rows.h"
#include "io/run_state.h"

namespace hesspect::checkpoint_kill_test {
namespace {

using test::RunState;

namespace fs = std::filesystem;

constexpr int kKills = 40;
constexpr std::int64_t kProbe = 3;

struct Said {
  std::int64_t steps = 0;     // of the last commit
  std::int64_t products = 0;  // in the last run state
};

/// Until it is killed.
[[noreturn]] void play_run(const fs::path& path, int pipe) {
  CheckpointFolder folder(path);
  folder.lock();
  std::vector<std::string> warnings;
  RunState state = folder.read_run<RunState>(warnings).value_or(RunState{});
  state.text.assign(1 << 20, 'p');  // so large that it can be killed while it writes this
  if (state.products == 0) folder.write_run(state);
  const auto manifests = folder.manifests(kProbe, state.run_id);
  ProbeManifest m = manifests.empty() ? new_manifest(20011, 3, kProbe) : manifests.front();
  for (;;) {
    add_generation(folder, m, m.steps + 2);
    ++state.products;
    folder.write_run(state);
    const Said said{m.steps, state.products};
    if (::write(pipe, &said, sizeof said) != sizeof said) _exit(1);
    if (m.steps > 60) {  // a new probe, so that the files stay small
      folder.remove_probe(kProbe);
      const Said anew{0, state.products};
      if (::write(pipe, &anew, sizeof anew) != sizeof anew) _exit(1);
      m = new_manifest(20011, 3, kProbe);
    }
  }
}

/// Reads up to `most` reports, as long as any come. @return the last of them, or what was said before
Said listen(int pipe, int most, Said said) {
  Said next;
  while (most-- > 0 && ::read(pipe, &next, sizeof next) == sizeof next) said = next;
  return said;
}

using Clock = std::chrono::steady_clock;

TEST(CheckpointKill, WhatWasCommittedIsWhole) {
  std::string name = (fs::temp_directory_path() / "hesspect_kill_XXXXXX").string();
  const fs::path path = fs::path(mkdtemp(name.data())) / "checkpoint";
  std::mt19937 random(20240607);
  std::uniform_int_distribution<int> reports(0, 2);
  std::uniform_real_distribution<double> part(0, 1.5);
  Said said;
  Clock::duration pace = std::chrono::milliseconds(10);  // of a generation
  std::int64_t commits = 0;
  for (int kill_number = 0; kill_number < kKills; ++kill_number) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(ends[0]);
      play_run(path, ends[1]);
    }
    close(ends[1]);
    const Said before = said;
    const int waited_for = reports(random);
    const auto start = Clock::now();
    said = listen(ends[0], waited_for, said);
    if (waited_for > 0) pace = (Clock::now() - start) / waited_for;
    std::this_thread::sleep_for(pace * part(random));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the run ended by itself";
    said = listen(ends[0], std::numeric_limits<int>::max(), said);
    close(ends[0]);
    commits += said.products - before.products;

    const CheckpointFolder folder(path);
    if (!folder.exists()) {
      ASSERT_EQ(said.products, 0);
      continue;
    }
    std::vector<std::string> warnings;
    const auto state = folder.read_run<RunState>(warnings);
    ASSERT_TRUE(state.has_value());
    EXPECT_TRUE(warnings.empty()) << warnings.front();
    // One generation more may have been written than it came to say.
    EXPECT_GE(state->products, said.products);
    EXPECT_LE(state->products, said.products + 1);
    const auto manifests = folder.manifests(kProbe, "5eed");
    const std::int64_t steps = manifests.empty() ? 0 : manifests.front().steps;
    const bool removing = said.steps > 60;
    if (!removing) {
      EXPECT_GE(steps, said.steps);
      EXPECT_LE(steps, said.steps + 2);
      EXPECT_GE(static_cast<std::int64_t>(manifests.size()), std::min<std::int64_t>(steps / 2, 2));
    }
    for (const auto& manifest : manifests) EXPECT_TRUE(rows_are_right(folder, manifest, 2)) << kill_number;
    said = {steps, state->products};  // the next start goes on from there
  }
  EXPECT_GT(commits, kKills / 2);
  fs::remove_all(path.parent_path());
}

}  // namespace
}  // namespace hesspect::checkpoint_kill_test
