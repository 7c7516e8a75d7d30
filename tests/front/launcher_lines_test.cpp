#include "launcher_lines.h"

#include <gtest/gtest.h>

#include <sstream>

namespace hesspect::launcher_lines_test {
namespace {

const std::string kEdge(74, '-');

/// All that people see of an output.
std::vector<std::string> seen(const std::string& output, int exit_code) {
  LauncherLines lines;
  std::vector<std::string> all;
  const auto add = [&](const std::vector<std::string>& more) { all.insert(all.end(), more.begin(), more.end()); };
  std::istringstream in(output);
  for (std::string line; std::getline(in, line);) add(lines.take(line));
  add(lines.finish(exit_code));
  return all;
}

using Lines = std::vector<std::string>;

// As Open MPI 4.1.4 writes it.
const std::string kReturned = kEdge +
                              "\nPrimary job  terminated normally, but 1 process returned\n"
                              "a non-zero exit code. Per user-direction, the job has been aborted.\n" +
                              kEdge + "\n" + kEdge +
                              "\nmpirun detected that one or more processes exited with non-zero status, thus causing\n"
                              "the job to be terminated. The first process to do so was:\n\n"
                              "  Process name: [[20085,1],1]\n  Exit code:    4\n" +
                              kEdge + "\n";
const std::string kKilled =
    kEdge +
    "\nPrimary job  terminated normally, but 1 process returned\n"
    "a non-zero exit code. Per user-direction, the job has been aborted.\n" +
    kEdge + "\n" + kEdge + "\nmpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).\n" +
    kEdge + "\n";
const std::string kNoSlots = kEdge +
                             "\nThere are not enough slots available in the system to satisfy the 4\n"
                             "slots that were requested by the application:\n\n  hesspect\n" +
                             kEdge + "\n";

TEST(LauncherLines, WhatARankHasSaidIsEnough) {
  EXPECT_EQ(seen("hesspect: 31 parameters\nhesspect: error: no such file\n" + kReturned, 4),
            (Lines{"hesspect: 31 parameters", "hesspect: error: no such file"}));
  EXPECT_EQ(seen(kReturned + "hesspect: error: no such file\n", 4), (Lines{"hesspect: error: no such file"}));
  EXPECT_EQ(seen("hesspect: error: rank 1 on a: broken\nhesspect: error: rank 2 on a: broken\n", 6),
            (Lines{"hesspect: error: rank 1 on a: broken"}));
}

TEST(LauncherLines, EndsThatAreNoFailureAreNotTold) {
  for (const int code : {3, 75}) EXPECT_EQ(seen("hesspect: done\n" + kReturned, code), (Lines{"hesspect: done"}));
  EXPECT_EQ(seen("hesspect: done\n", 0), (Lines{"hesspect: done"}));
}

// As Slurm 22.05 writes it.
TEST(LauncherLines, SlurmsRemarksOnAnEnd) {
  const std::string ended =
      "srun: error: vm: tasks 0-1: Exited with exit code 4\nsrun: Job step aborted: Waiting up to 7 seconds for job "
      "step to "
      "finish.\nslurmstepd-vm: error: *** STEP 4.0 ON vm CANCELLED AT 2026-11-30T02:53:50 ***\n";
  EXPECT_EQ(seen("hesspect: error: no such array\n" + ended, 4), (Lines{"hesspect: error: no such array"}));
  EXPECT_EQ(seen(ended, 4), (Lines{"hesspect: error: a rank ended without a word (exit code 4)"}));
  EXPECT_EQ(seen(ended, 75), (Lines{}));
}

TEST(LauncherLines, WithoutAWordOfTheRanksTheLaunchersCounts) {
  EXPECT_EQ(seen(kReturned, 9), (Lines{"hesspect: error: a rank ended without a word (exit code 9)"}));
  const Lines killed = seen("hesspect: 31 parameters\n" + kKilled, 137);
  ASSERT_EQ(killed.size(), 2u);
  EXPECT_TRUE(
      killed[1].starts_with("hesspect: error: mpirun noticed that process rank 1 with PID 0 on node vm exited on "
                            "signal 9 (Killed)."));
  EXPECT_EQ(
      seen(kNoSlots, 1),
      (Lines{"hesspect: error: There are not enough slots available in the system to satisfy the 4 slots that were "
             "requested by the application: hesspect (exit code 1)"}));
  EXPECT_EQ(seen("srun: error: Unable to create step for job 7: More processors requested than permitted\n", 1),
            (Lines{"hesspect: error: srun: error: Unable to create step for job 7: More processors requested than "
                   "permitted (exit code 1)"}));
  EXPECT_EQ(seen("", 213), (Lines{"hesspect: error: the launcher ended without a word (exit code 213)"}));
}

TEST(LauncherLines, ARemarkBeforeTheRanksIsAWarning) {
  const std::string remark = kEdge + "\nWARNING: there is\nno such fabric\n" + kEdge + "\n";
  EXPECT_EQ(seen(remark + "hesspect: 31 parameters\n", 0),
            (Lines{"hesspect: warning: WARNING: there is no such fabric", "hesspect: 31 parameters"}));
  EXPECT_EQ(seen("hesspect: done\n" + remark, 0),
            (Lines{"hesspect: done", "hesspect: warning: WARNING: there is no such fabric"}));
}

TEST(LauncherLines, OtherLinesPass) {
  EXPECT_EQ(seen("terminate called\n[vm:1] 3 more processes have sent help message help-mpi-api.txt / mpi-abort\nx", 0),
            (Lines{"terminate called", "x"}));
  // A frame that never closes, and one that is none.
  EXPECT_EQ(seen(kEdge + "\nhalf a remark\n", 1), (Lines{"hesspect: error: half a remark (exit code 1)"}));
  std::string much = kEdge + "\n";
  for (int i = 0; i < 80; ++i) much += "row\n";
  EXPECT_EQ(seen(much, 0).size(), 80u);
}

}  // namespace
}  // namespace hesspect::launcher_lines_test
