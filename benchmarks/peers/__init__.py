"""Packmule beside other job systems: the same jobs, servers and clocks for all, in one run.

    make bench-peers                                          # installs the peers first
    make bench-peers ARGS="--only noop,latency --peers packmule,rq,bullmq --rounds 5 --jobs 20000"

Systems on Node run where Node 20 is, Sidekiq where Debian's ruby-sidekiq is, and those that need Python 3.13
where `make` finds one (`python3.13`, or pyenv's). What is left out is said in a line.

**The setting.** Each measurement gets a Valkey of its own, empty, with its append-only file synced every
second, on a loopback port, and two worker processes in the configuration that `setups.py` shows. In a round
every system takes its turn at a figure before the next figure begins. Printed are the medians of the rounds.

**Throughput.** The workers are started and fed until both processes have performed something; Node's perform
thousands of jobs, and its producers enqueue as many, so that their code is compiled. Then the workers are
stopped with SIGSTOP, the queue is filled, and they go on: start-up, filling and a late second process cost
nobody anything. Among the jobs are 40 marks at equal distances, which note their time in a file, so that no
poll disturbs the server. The rate is that of the jobs between the time by which 10 % of the marks were
performed and that of the last. The job that does one INCR is checked by its count.

**Sleeps** are filled the same way, and measured from SIGCONT to the end of the last. A system that performs
one job at a time gets a tenth of them, and its time is multiplied.

**Latency** is from before the call that enqueues to the first line of the job, for one job at a time, each
enqueued 5 to 20 ms after the one before has been performed.

**Memory** is the proportional set size (PSS) of all processes of a system, at rest after some jobs; the
server's is not in it. **At rest** is the time on a core that all their threads take while the queue is empty,
for 10 s. Packmule runs its scheduler too, as `packmule worker` does, except where it claims single jobs.

A job returns 1, so that every system that stores results has one to store.
"""
