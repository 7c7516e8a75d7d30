#include "hesspect/service/spool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "hesspect/core/errors.h"
#include "hesspect/core/host.h"
#include "hesspect/service/allowed_paths.h"
#include "hesspect/service/claims.h"

namespace hesspect::spool_test {
namespace {

namespace fs = std::filesystem;

class SpoolTest : public ::testing::Test {
 protected:
  SpoolTest() {
    std::string name = (fs::temp_directory_path() / "hesspect_spool_XXXXXX").string();
    folder = mkdtemp(name.data());
    Spool::make(folder);
    spool.emplace(folder);
  }
  ~SpoolTest() override { fs::remove_all(folder); }

  std::string add(const std::string& name, std::int64_t priority = 0) const {
    JobOptions job;
    job.head.name = name;
    job.head.priority = priority;
    job.run.config.model.model = "M # \"quoted\".pt2";
    return spool->add(job, "incoming");
  }
  static void write(const fs::path& file, const std::string& text, bool settled = true) {
    std::ofstream(file) << text;
    const timespec times[2] = {{1, 0}, {1, 0}};
    if (settled) utimensat(AT_FDCWD, file.c_str(), times, 0);
  }
  std::vector<std::string> names() {
    std::vector<std::string> all;
    for (const QueuedJob& job : spool->queued("incoming", 2)) all.push_back(job.head.name);
    return all;
  }

  fs::path folder;
  std::optional<Spool> spool;
};

TEST_F(SpoolTest, JobsComeBackAsTheyWere) {
  const std::string id = add("step; 400 # of \"run\"", 3);
  EXPECT_TRUE(Spool::is_id(id));
  const JobOptions job = parse_job(spool->read_job_file(folder / "incoming" / (id + ".ini")), id);
  EXPECT_EQ(job.head.name, "step; 400 # of \"run\"");
  EXPECT_EQ(job.head.priority, 3);
  EXPECT_GT(job.head.submitted, 1e9);
  EXPECT_EQ(job.run.command, Command::kAnalyze);
  EXPECT_EQ(job.run.config.model.model, "M # \"quoted\".pt2");
}

TEST_F(SpoolTest, ByPriorityThenArrival) {
  add("a");
  add("b", -1);
  add("c", 5);
  add("d");
  write(folder / "incoming" / "hand.ini", "[job]\nname = hand\n");         // of 1970
  write(folder / "incoming" / "half.ini", "[job]\nname = half\n", false);  // just now: not taken yet
  write(folder / "incoming" / ".hidden.ini", "[job]\nname = hidden\n");
  EXPECT_EQ(names(), (std::vector<std::string>{"c", "hand", "a", "d", "b"}));
}

TEST_F(SpoolTest, LinesOfAJobAreNamed) {
  const auto wrong = [](const std::string& text) {
    try {
      parse_job(text, "x.ini");
    } catch (const UsageError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(wrong("[job]\ncommand = landscape\n").find("x.ini:2: a job's command is analyze"), 0U);
  EXPECT_NE(wrong("[job]\npriorty = 3\n").find("did you mean 'priority'"), std::string::npos);
  EXPECT_NE(wrong("[job]\npriority = high\n").find("expected a number"), std::string::npos);
  EXPECT_NE(wrong("[job]\n\n[options]\nmodle = M\n").find("x.ini:4: unknown key 'modle'"), std::string::npos);
  EXPECT_NE(wrong("spool = /\n").find("unknown key 'spool'"), std::string::npos);
}

TEST_F(SpoolTest, OfTwoServicesOneHasTheJob) {
  const std::string id = add("once");
  Claims one(*spool, [] {});
  Spool again(folder);
  Claims other(again, [] {});
  const std::optional<Claim> claim = one.next("");
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->id, id);
  EXPECT_FALSE(other.next(""));
  EXPECT_TRUE(other.take_over("").empty());  // the first one lives
  EXPECT_FALSE(other.next(""));
  one.put_back(*claim);
  EXPECT_TRUE(other.next(""));
}

/// A service of its own process takes the only job, begins it, and dies. @return its wait status, 0 where the job had
/// that many deaths and starts, and was given up or not as expected
int status_of_a_service(const fs::path& folder, std::int64_t kept, std::int64_t deaths, std::size_t starts,
                        bool is_given_up) {
  const pid_t child = fork();
  if (child == 0) {
    Spool mine(folder);
    auto* const claims = new Claims(mine, [] {});
    claims->take_over("");
    std::optional<Claim> claim = claims->next("");
    if (!claim) _exit(1);
    const std::string line = Claims::given_up(*claim, kept);
    if (claim->count.deaths != deaths || claim->count.starts != static_cast<std::int64_t>(starts)) _exit(2);
    if (line.empty() == is_given_up) _exit(3);
    claims->begin(*claim);
    _exit(0);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child ? status : -1;
}

/// Deaths count while the products in a job's checkpoint stay as they are from one start to the next.
TEST_F(SpoolTest, DeathsWithoutAGain) {
  add("deadly");
  const std::int64_t kept[] = {0, 5, 5, 9, 9, 9};  // at each start
  const std::int64_t deaths[] = {0, 0, 1, 0, 1, 2};
  for (std::size_t start = 0; start < std::size(kept); ++start) {
    const int status = status_of_a_service(folder, kept[start], deaths[start], start, start + 1 == std::size(kept));
    ASSERT_EQ(status, 0) << "start " << start;
  }
}

TEST(ClaimedNames, ComeBack) {
  for (const char* const name : {"ID@3-1-250.ini", "a-reboot@0-0-0.ini", "ID@3-1-250-reboot.ini"}) {
    const std::optional<ClaimedName> read = claimed_name(name);
    ASSERT_TRUE(read) << name;
    EXPECT_EQ(to_string(*read), name);
    EXPECT_EQ(read->host_went, std::string(name).ends_with("-reboot.ini"));
  }
  for (const char* const other : {"ID@3.ini", "ID@3-1.ini", "ID@3-1-.ini", "ID@3-1-2-4.ini", "ID@3--1-2.ini", "ID@.ini",
                                  "ID@-reboot.ini", "ID@3-1-reboot.ini", "ID-reboot.ini", "ID@3-1-2-boot.ini"})
    EXPECT_FALSE(claimed_name(other)) << other;
}

/// Services that go with their host leave the count of deaths as it was, whatever it was; starts count on.
TEST_F(SpoolTest, ADeathWithItsHostIsNone) {
  add("unlucky");
  const fs::path boot = folder / "boot";
  setenv("HESSPECT_BOOT_ID", boot.c_str(), 1);
  const char* const boots[] = {"1", "1", "2", "3", "4", "4"};  // the service of each start is of this one
  const std::int64_t deaths[] = {0, 1, 1, 1, 1, 2};
  for (std::size_t start = 0; start < std::size(boots); ++start) {
    write(boot, boots[start]);
    const int status = status_of_a_service(folder, 0, deaths[start], start, deaths[start] == 2);
    ASSERT_EQ(status, 0) << "start " << start;
  }
  unsetenv("HESSPECT_BOOT_ID");
}

/// A power cut between a claim's taking over and its start is no death either: what is known of the last one stays.
TEST_F(SpoolTest, AHostThatWentIsNotForgotten) {
  const fs::path boot = folder / "boot", gone = folder / "claimed" / "gone-1-abcdef";
  setenv("HESSPECT_BOOT_ID", boot.c_str(), 1);
  write(boot, "2");
  fs::create_directory(gone);
  write(gone / "lease", R"({"host": ")" + host_name() + R"(", "boot": "1", "processes": ")" +
                            fs::read_symlink("/proc/self/ns/pid").string() + R"(", "process": 1, "start": "1"})");
  write(gone / "job@1-0-0.ini", "[job]\nname = far\n");
  const pid_t child = fork();
  if (child == 0) {
    Spool mine(folder);
    auto* const claims = new Claims(mine, [] {});
    _exit(claims->take_over("").size() == 1 && claims->next("")->host_went ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  Claims claims(*spool, [] {});
  EXPECT_EQ(claims.take_over("").size(), 1U);  // of the same boot
  std::optional<Claim> claim = claims.next("");
  ASSERT_TRUE(claim);
  EXPECT_TRUE(claim->host_went);
  EXPECT_EQ(Claims::given_up(*claim, 0), "");
  EXPECT_EQ(claim->count.deaths, 0);
  claims.begin(*claim);
  EXPECT_FALSE(claim->host_went);
  EXPECT_EQ(claim->file, "job@2-0-0.ini");
  unsetenv("HESSPECT_BOOT_ID");
}

/// A process that claims, begins and dies; twice.
TEST_F(SpoolTest, AClaimOutlivesItsService) {
  const std::string id = add("deadly");
  for (std::int64_t starts = 0; starts < 2; ++starts) {
    const pid_t child = fork();
    if (child == 0) {
      Spool mine(folder);
      auto* const claims = new Claims(mine, [] {});
      claims->take_over("");
      std::optional<Claim> claim = claims->next("");
      if (claim && claim->count.starts == starts) claims->begin(*claim);
      _exit(claim ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
  }
  Claims claims(*spool, [] {});
  EXPECT_FALSE(claims.next(""));
  EXPECT_EQ(claims.take_over("").size(), 1U);
  const std::optional<Claim> claim = claims.next("");
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->id, id);
  EXPECT_EQ(claim->count.starts, 2);
  JobInfo info;
  info.id = id;
  info.state = JobState::kFailed;
  claims.finish(*claim, info);
  EXPECT_EQ(spool->find(id)->state, JobState::kFailed);
}

/// A lease of another host counts by its age on the file server's clock, whatever this host's clock says.
TEST_F(SpoolTest, ALeaseOfAnotherHost) {
  const fs::path other = folder / "claimed" / "elsewhere-1-abcdef";
  fs::create_directory(other);
  write(other / "lease", R"({"host": "elsewhere", "boot": "b", "processes": "pid:[1]", "process": 1, "start": "1"})",
        false);
  Claims claims(*spool, [] {});
  EXPECT_TRUE(fs::exists(other));
  write(other / "job@1-0-0.ini", "[job]\nname = far\n");
  EXPECT_TRUE(claims.take_over("").empty());
  timespec times[2] = {};
  clock_gettime(CLOCK_REALTIME, &times[0]);
  times[0].tv_sec -= 61;
  times[1] = times[0];
  utimensat(AT_FDCWD, (other / "lease").c_str(), times, 0);
  EXPECT_EQ(claims.take_over("").size(), 1U);
  EXPECT_FALSE(fs::exists(other));
  EXPECT_EQ(claims.next("")->count.starts, 1);
  EXPECT_FALSE(claims.next("")->host_went);  // that host may run on
}

TEST_F(SpoolTest, CancelledBeforeAndWhileItRuns) {
  const std::string first = add("first"), second = add("second");
  EXPECT_EQ(cancel_job(*spool, first), "cancelled");
  EXPECT_EQ(spool->find(first)->state, JobState::kCancelled);
  EXPECT_THROW(cancel_job(*spool, first), UsageError);
  EXPECT_THROW(cancel_job(*spool, "../x"), UsageError);
  Claims claims(*spool, [] {});
  std::optional<Claim> claim = claims.next("");
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->id, second);
  claims.begin(*claim);
  EXPECT_FALSE(claims.is_cancelled(*claim));
  EXPECT_EQ(cancel_job(*spool, second), "is being stopped");
  EXPECT_TRUE(claims.is_cancelled(*claim));
}

/// A file that somebody drops again under a name that has ended becomes a job of its own.
TEST_F(SpoolTest, ANameThatHasEnded) {
  Claims claims(*spool, [] {});
  for (const char* const id : {"same", "same.2", "same.3"}) {
    write(folder / "incoming" / "same.ini", "[job]\nname = x\n");
    const std::optional<Claim> claim = claims.next("");
    ASSERT_TRUE(claim);
    EXPECT_EQ(claim->id, id);
    JobInfo info;
    info.id = claim->id;
    info.state = JobState::kDone;
    claims.finish(*claim, info);
  }
}

TEST_F(SpoolTest, PathsStayInside) {
  const fs::path inside = folder / "inside";
  fs::create_directory(inside);
  write(inside / "m.pt2", "");
  write(folder / "secret", "");
  fs::create_symlink(folder / "secret", inside / "link");
  fs::create_directory_symlink(folder, inside / "up");
  const AllowedPaths allowed({inside.string()}, *spool);
  const auto wrong = [&](const std::string& model, const std::string& output) {
    RunConfig config;
    config.model.model = model;
    config.output.output = output;
    try {
      allowed.confine(config);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string good = (inside / "m.pt2").string(), out = (inside / "out.h5").string();
  EXPECT_EQ(wrong(good, out), "");
  for (const char* const model : {"link", "up/secret", "../secret", "up/no_such_file"})
    EXPECT_NE(wrong((inside / model).string(), out).find("lies outside"), std::string::npos) << model;
  EXPECT_NE(wrong((inside / "none").string(), out).find("no such file"), std::string::npos);
  for (const char* const output : {"../out.h5", "up/out.h5", "up/none/out.h5"})
    EXPECT_NE(wrong(good, (inside / output).string()).find("lies outside"), std::string::npos) << output;
  EXPECT_NE(wrong(good, (inside / "link").string()).find("symbolic link"), std::string::npos);
  EXPECT_NE(wrong(good, (inside / "..").string()).find("names no file"), std::string::npos);
  const AllowedPaths of_spool({folder.string()}, *spool);
  RunConfig config;
  config.output.output = (folder / "incoming" / "x.h5").string();
  EXPECT_THROW(of_spool.confine(config), UsageError);
}

TEST_F(SpoolTest, AFolderThatEverybodyMayWriteTo) {
  chmod((folder / "incoming").c_str(), 0777);
  EXPECT_THROW(Spool{folder}, UsageError);
  chmod((folder / "incoming").c_str(), 0755);
  EXPECT_NO_THROW(Spool{folder});
}

}  // namespace
}  // namespace hesspect::spool_test
