"""What Open OnDemand understands in a batch-connect app, as tables.

From OSC/ondemand (`apps/dashboard/app/`: `apps/manifest.rb`, `models/batch_connect/`, `lib/smart_attributes/`) and
OSC/ood_core (`lib/ood_core/job/script.rb`, `lib/ood_core/batch_connect/`), versions 3.0 to 4.2 and 0.23 to 0.31.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MANIFEST = frozenset(
    {"name", "description", "category", "subcategory", "icon", "role", "url", "metadata", "new_window", "caption",
     "tile"}
)  # fmt: skip

FORM = frozenset(
    {"cluster", "form", "attributes", "title", "description", "icon", "caption", "category", "subcategory", "metadata",
     "tile", "form_header", "cacheable", "ssh_allow", "submit", "view"}
)  # fmt: skip

PREDEFINED = frozenset(
    {"cluster", "bc_account", "bc_queue", "bc_num_hours", "bc_num_slots", "bc_num_nodes", "bc_email_on_started",
     "bc_vnc_idle", "bc_vnc_resolution", "bc_hide_resolution", "auto_accounts", "auto_args", "auto_batch_clusters",
     "auto_cores", "auto_groups", "auto_job_name", "auto_log_location", "auto_num_nodes", "auto_output_directory",
     "auto_primary_group", "auto_qos", "auto_queues", "auto_scripts"}
)  # fmt: skip
PREDEFINED_PATTERN = re.compile(r"(auto_modules|auto_environment_variable|global)_[\w-]+")

WIDGETS = frozenset(
    {"text_field", "select", "number_field", "check_box", "radio", "radio_button", "hidden_field", "text_area",
     "path_selector", "resolution_field", "file_attachments", "file_field", "date_field", "time_field",
     "datetime_field", "datetime_local_field", "month_field", "week_field", "email_field", "url_field", "search_field",
     "telephone_field", "phone_field", "password_field", "color_field", "range_field"}
)  # fmt: skip
"""What the form is drawn with; any other word is called as a method of Rails' form builder."""

FREE = WIDGETS - {"check_box", "hidden_field", "radio", "radio_button", "select"}
"""Widgets that a person types into."""

ATTRIBUTE = frozenset(
    {"widget", "label", "help", "value", "required", "min", "max", "step", "options", "exclude_options",
     "checked_value", "unchecked_value", "cacheable", "display", "fixed", "hide_when_empty", "hide_by_default",
     "header", "html_options",
     # path_selector
     "directory", "show_hidden", "show_files", "favorites", "file_pattern", "popup_title",
     # auto_modules, auto_environment_variable, global
     "default", "module", "key", "filter",
     # handed on to HTML and to the form builder
     "accept", "append", "autocomplete", "autofocus", "checked", "class", "cols", "data", "disabled",
     "help_block", "hide_label", "id", "include_blank", "inline", "maxlength", "minlength", "multiple", "pattern",
     "placeholder", "prepend", "prompt", "readonly", "rows", "selected", "size", "skip_label", "style", "title", "type",
     "wrapper", "wrapper_class"}
)  # fmt: skip
ATTRIBUTE_PATTERN = re.compile(r"(data|aria|on)-?[\w-]+")

SUBMIT = frozenset({"cluster", "batch_connect", "script"})

SCRIPT = frozenset(
    {"submit_as_hold", "rerunnable", "job_environment", "workdir", "email", "email_on_started", "email_on_terminated",
     "job_name", "input_path", "output_path", "error_path", "reservation_id", "queue_name", "priority", "start_time",
     "wall_time", "accounting_id", "job_array_request", "qos", "gpus_per_node", "cores", "copy_environment", "native",
     "shell_path"}
)  # fmt: skip

INSTEAD: Mapping[str, str] = {
    "account": "accounting_id",
    "args": 'nothing: it is ignored; hand values over in "job_environment"',
    "constraint": 'native: ["--constraint", ...]',
    "content": "nothing: it is the portal's own",
    "cpus": 'native: ["--cpus-per-task", ...]',
    "cpus_per_task": 'native: ["--cpus-per-task", ...]',
    "env": "job_environment",
    "environment": "job_environment",
    "gres": 'native: ["--gres", ...]',
    "mail": "email",
    "mem": 'native: ["--mem", ...]',
    "memory": 'native: ["--mem", ...]',
    "modules": "a line `module load ...` in the script",
    "nodes": 'native: ["--nodes", ...]',
    "num_cores": "cores",
    "ntasks": "cores",
    "partition": "queue_name",
    "queue": "queue_name",
    "time": "wall_time, in seconds",
    "walltime": "wall_time, in seconds",
}
"""What people write below `script`, and what is understood."""

BATCH_CONNECT = frozenset(
    {"template", "conn_params", "header", "footer", "script_wrapper", "set_host", "before_script", "run_script",
     "after_script", "clean_script", "before_file", "script_file", "after_file", "clean_file", "timeout", "min_port",
     "max_port", "password_size", "passwd_size", "bash_helpers",
     # vnc, vnc_container
     "vnc_args", "vnc_clean", "vnc_passwd", "name", "geometry", "dpi", "fonts", "idle", "extra_args",
     "websockify_cmd", "websockify_heartbeat_seconds", "container_path", "container_bindpath", "container_module",
     "container_command", "container_start_args"}
)  # fmt: skip
TEMPLATES = frozenset({"basic", "vnc", "vnc_container", "wayvnc"})

METHODS = frozenset(
    {"class", "clone", "define_singleton_method", "delete_field", "dig", "display", "dup", "each_pair",
     "encode_with", "enum_for", "extend", "freeze", "hash", "init_with", "inspect", "instance_eval", "instance_exec",
     "instance_variable_get", "instance_variable_set", "instance_variables", "itself", "marshal_dump", "method",
     "methods", "object_id", "private_methods", "protected_methods", "public_method", "public_methods",
     "public_send", "remove_instance_variable", "send", "singleton_class", "singleton_method", "singleton_methods",
     "table", "taint", "tap", "then", "to_enum", "to_h", "to_json", "to_s", "trust", "untaint", "untrust",
     "yield_self", "as_json", "blank?", "present?", "presence", "presence_in", "in?", "try", "try!", "to_param",
     "to_query", "to_yaml", "deep_dup", "duplicable?", "html_safe?", "instance_values", "instance_variable_names",
     "acts_like?", "with_options", "with", "require_dependency", "load_dependency", "pretty_inspect", "pretty_print"}
)  # fmt: skip
"""Methods of an OpenStruct, with those that Rails adds: no field can have such a name
(`SessionContext#to_openstruct`)."""

ROLE = "batch_connect"
