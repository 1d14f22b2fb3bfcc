# Renders ERB files as Open OnDemand does (trim mode "-"), with values that are made up.
#
# Standard input: {"tasks": [{"file": "...", "as": "form|submit|stage|session|connect", "values": {...}, "session": {...}}]}
# Standard output: for each task {"text": "..."} or {"error": "...", "kind": "NameError", "line": 3}
#
# The little of Rails that apps lean on is here; what else they ask the portal for is an error of the kind NameError.

require "erb"
require "json"
require "ostruct"
require "pathname"
require "yaml"

Encoding.default_external = Encoding::UTF_8
Encoding.default_internal = Encoding::UTF_8

class Object
  def blank?
    respond_to?(:empty?) ? !!empty? : !self
  end

  def present?
    !blank?
  end

  def presence
    self if present?
  end

  def try(name, *rest)
    respond_to?(name) ? public_send(name, *rest) : nil
  end
end

class String
  def blank?
    strip.empty?
  end

  def squish
    strip.gsub(/\s+/, " ")
  end

  def titleize
    tr("_", " ").split.map(&:capitalize).join(" ")
  end

  def html_safe
    self
  end
end

class Array
  def self.wrap(object)
    object.nil? ? [] : (object.respond_to?(:to_ary) ? object.to_ary : [object])
  end
end

class Hash
  def symbolize_keys
    transform_keys(&:to_sym)
  end

  def deep_merge(other)
    merge(other) { |_, mine, its| mine.is_a?(Hash) && its.is_a?(Hash) ? mine.deep_merge(its) : its }
  end
end

module OodAppkit
  Files = Struct.new(:base) do
    def url(path: "")
      base + path.to_s
    end
  end

  def self.files
    Files.new("/pun/sys/dashboard/files/fs")
  end
end

# What a form's values look like to a template: a value is read by its field's name, and there are no others.
class Context
  include Enumerable

  def initialize(values)
    @values = values
  end

  def each(&block)
    @values.each(&block)
  end

  def to_h
    @values.transform_keys(&:to_sym)
  end

  def [](name)
    @values[name.to_s]
  end

  def as_json(*)
    @values
  end

  def method_missing(name, *rest)
    @values.key?(name.to_s) ? @values[name.to_s] : super
  end

  def respond_to_missing?(name, _private = false)
    @values.key?(name.to_s) || super
  end
end

Status = Struct.new(:name) do
  def to_sym
    name.to_sym
  end

  def to_s
    name
  end

  %w[queued running completed].each { |state| define_method("#{state}?") { name == state } }
end

# A session, as the views of a card see it.
class Session
  attr_reader :id, :job_id, :cluster_id, :created_at, :staged_root, :user_context, :connect, :title, :token

  def initialize(said)
    @id = said["id"] || "0b7e6a52-3a7f-4f52-9c3a-000000000000"
    @job_id = said["job_id"] || "4711"
    @cluster_id = said["cluster_id"] || "cluster"
    @created_at = said["created_at"] || 1_700_000_000
    @staged_root = Pathname.new(said["staged_root"] || "/nowhere")
    @user_context = said["user_context"] || {}
    @connect = OpenStruct.new(said["connect"] || {})
    @title = said["title"] || "A title"
    @token = said["token"] || "sys/app"
    @state = said["state"] || "running"
    define_singleton_method(:render_completed_view) { nil } if said.fetch("has_completed_view", true)
  end

  def status
    Status.new(@state)
  end

  def info
    OpenStruct.new(id: job_id, status: status, allocated_nodes: [], wallclock_time: 60, wallclock_limit: 3600, native: {})
  end

  def completed?
    status.completed?
  end

  def running?
    status.running?
  end

  def queued?
    status.queued?
  end

  def view
    binding
  end
end

# A form's values as submit.yml sees them: a name that is no field is nil, without a word. Here it is remembered.
class Values < OpenStruct
  MISSING = []

  def method_missing(name, *rest)
    MISSING << name.to_s if rest.empty?
    super
  end
end

Stage = Struct.new(:session, :context) do
  def view
    binding
  end
end

def bound(task)
  values = task["values"] || {}
  case task["as"]
  when "form" then Object.new.instance_eval { binding }
  when "submit"
    clashes = OpenStruct.new.methods.map(&:to_s) & values.keys
    raise ArgumentError, "#{clashes.inspect} are keywords that cannot be used as names for form items" if clashes.any?

    Values.new(values.merge("staged_root" => task.dig("session", "staged_root"))).instance_eval { binding }
  when "stage" then Stage.new(Session.new(task["session"] || {}), Context.new(values)).view
  when "session" then Session.new(task["session"] || {}).view
  else OpenStruct.new(task.dig("session", "connect") || {}).instance_eval { binding }
  end
end

def line_of(error, file)
  places = [error.message, *(error.backtrace || [])]
  found = places.filter_map { |place| place[/#{Regexp.escape(file)}:(\d+)/, 1] }.first
  found ? found.to_i : nil
end

def rendered(task)
  file = task["file"]
  erb = ERB.new(File.read(file), trim_mode: "-")
  erb.filename = file
  view = bound(task)
  Values::MISSING.clear
  text = erb.result(view)
  { "text" => text, "missing" => Values::MISSING.uniq }
rescue SystemExit
  { "error" => "it ends the portal's own process (exit)", "kind" => "SystemExit", "line" => nil }
rescue StandardError, ScriptError => error
  kind = error.class.ancestors.include?(NameError) ? "NameError" : error.class.name
  said = error.message.lines.first.to_s.strip.delete_prefix("#{file}:").sub(/\A\d+: /, "")
  name = error.respond_to?(:name) ? error.name.to_s : ""
  { "error" => said, "kind" => kind, "line" => line_of(error, file), "name" => name }
end

answers = $stdout.dup
$stdout.reopen($stderr)
answers.write(JSON.generate(JSON.parse($stdin.read)["tasks"].map { |task| rendered(task) }))
