# Sidekiq, which stores no results: `sidekiq -r ./bench.rb` works, and `ruby bench.rb VERB JOB COUNT` enqueues as
# in produce.py.

require "sidekiq"

MARKS = 40
AT_ONCE = 1_000 # the most that its documentation recommends for a push_bulk

Sidekiq.logger.level = Logger::ERROR
[:configure_client, :configure_server].each do |configure|
  Sidekiq.public_send(configure) { |config| config.redis = { url: ENV["BENCH_URL"] } }
end

def now = Process.clock_gettime(Process::CLOCK_REALTIME)

class Bench
  include Sidekiq::Job

  FILE = File.open(ENV["BENCH_MARKS"], "a")

  def perform(job, value = 0) = public_send(job, value)

  def noop(_) = 1

  def mark(value)
    at = now
    FILE.syswrite("#{Process.pid} #{value} #{at}\n")
  end

  def incr(_) = Sidekiq.redis { |redis| redis.incr("bench:count") }

  def nap(_)
    sleep(0.01)
    mark(0)
  end
end

module Produce
  module_function

  def bulk(job, count)
    count.step(1, -AT_ONCE) do |left|
      Sidekiq::Client.push_bulk("class" => Bench, "args" => Array.new([left, AT_ONCE].min) { [job] })
    end
  end

  def each(job, count) = count.times { Bench.perform_async(job) }

  def fill(job, count)
    MARKS.times do |position|
      bulk(job, count / MARKS - 1)
      Bench.perform_async("mark", position)
    end
  end

  def paced(job, count)
    count.times do
      sleep(rand(0.005..0.020))
      size = File.size(Bench::FILE.path)
      Bench.perform_async(job, now)
      sleep(0.001) while File.size(Bench::FILE.path) == size
    end
  end
end

if $PROGRAM_NAME == __FILE__
  verb, job, count = ARGV
  Sidekiq.redis(&:ping)
  started = now
  Produce.public_send(verb, job, Integer(count))
  puts now - started
end
