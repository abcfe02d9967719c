"""Files of the former Cortex that use, between them, every field of every release with a value that it accepted."""

FILES = {
    "0.5": """\
- kind: deployment
  name: shop
- kind: api
  name: a
  model: s3://b/model.zip
  compute: {replicas: 3, cpu: 1, mem: 1Gi, gpu: 1}
  tags: {team: flowers, year: 2019, public: true}
""",
    "0.4": """\
- kind: api
  name: a
  external_model: {path: "s3://b/model.zip", region: us-east-1}
""",
    "0.9": """\
- kind: api
  name: a
  model: s3://b/model
  model_format: tensorflow
  request_handler: handler.py
  tf_signature_key: predict
  tracker: {key: label, model_type: classification}
  compute: {min_replicas: 2, max_replicas: 5, init_replicas: 3, target_cpu_utilization: 60, cpu: 200m, gpu: 0, mem: null}
""",
    "0.9 without parents": """\
- kind: api
  name: a
  model: s3://b/model.onnx
  key: label
  model_type: regression
  min_replicas: 2
  max_replicas: 5
  init_replicas: 3
  target_cpu_utilization: 60
  cpu: 1
  gpu: 1
  mem: 1Gi
""",
    "between 0.9 and 0.10": """\
- kind: api
  name: a
  python: {inference: inference.py}
  metadata: {labels: [x, y]}
""",
    "0.10 tensorflow": """\
- kind: api
  name: a
  endpoint: /shop/a
  tensorflow: {model: "s3://b/m", request_handler: h.py, signature_key: predict, python_path: lib, metadata: {a: 1}}
""",
    "0.10 onnx": """\
- kind: api
  name: a
  onnx: {model: s3://b/m.onnx, request_handler: h.py, python_path: lib/, metadata: {a: 1}}
""",
    "0.11": """\
- kind: api
  name: a
  predictor: {path: p.py, model: "s3://b/m", python_path: lib, metadata: {a: 1}}
""",
    "0.13": """\
- name: a
  endpoint: a
  predictor:
    {type: tensorflow, path: p.py, model: "s3://b/m", signature_key: predict, python_path: lib, config: {a: 1}, env: {A: 1}}
  tracker: {key: label, model_type: classification}
  compute: {min_replicas: 1, max_replicas: 2, init_replicas: 1, target_cpu_utilization: 80, max_surge: 1, max_unavailable: 0}
""",
    "0.17": """\
- name: a
  local_port: 8888
  predictor: {type: tensorflow, path: p.py, model: "s3://b/m", image: cortexlabs/x, tensorflow_serving_image: tensorflow/serving}
  monitoring: {key: label, model_type: regression}
  autoscaling:
    min_replicas: 1
    max_replicas: 4
    init_replicas: 2
    workers_per_replica: 2
    threads_per_worker: 3
    target_replica_concurrency: 6
    max_replica_concurrency: 100
    window: 1m0s
    downscale_stabilization_period: 5m
    upscale_stabilization_period: 1m
    max_downscale_factor: 0.75
    max_upscale_factor: 1.5
    downscale_tolerance: 0.05
    upscale_tolerance: 0.05
  update_strategy: {max_surge: 25%, max_unavailable: 25%}
""",
    "0.18": """\
- name: a
  predictor:
    type: tensorflow
    path: p.py
    models: [{name: m, model_path: "s3://b/m", signature_key: predict}]
    processes_per_replica: 1
    threads_per_process: 2
  networking: {endpoint: /a, api_gateway: none, local_port: 8888}
  compute: {inf: 1, cpu: 1, mem: 1Gi}
""",
    "0.19": """\
- name: a
  kind: RealtimeAPI
  predictor:
    type: tensorflow
    path: p.py
    model_path: s3://b/m
    signature_key: predict
    threads_per_process: 4
    server_side_batching: {max_batch_size: 4, batch_interval: 0.1s}
""",
    "0.24": """\
- name: a
  kind: RealtimeAPI
  predictor:
    type: tensorflow
    path: p.py
    models:
      paths: [{name: m, model_path: "s3://b/m", signature_key: predict}]
      signature_key: predict
      cache_size: 1
      disk_cache_size: 2
""",
    "0.25": """\
- name: a
  kind: RealtimeAPI
  predictor:
    type: python
    path: p.py
    multi_model_reloading: {paths: [{name: m, path: "s3://b/m"}], cache_size: 1, disk_cache_size: 2}
  monitoring: {model_type: classification}
  networking: {local_port: 8888}
""",
    "0.33": """\
- name: a
  kind: RealtimeAPI
  predictor:
    type: tensorflow
    path: p.py
    protobuf_path: p.proto
    models: {paths: [{name: m, path: "s3://b/m"}]}
    log_level: debug
    shm_size: 1Gi
    dependencies: {pip: r.txt, conda: c.txt, shell: s.sh}
- name: b
  kind: RealtimeAPI
  predictor: {type: tensorflow, path: p.py, models: {dir: "s3://b/m"}}
- name: c
  kind: RealtimeAPI
  predictor: {type: onnx, path: p.py, models: {path: "s3://b/m"}}
- name: d
  kind: RealtimeAPI
  predictor: {type: python, path: p.py, multi_model_reloading: {path: "s3://b/m"}}
- name: e
  kind: AsyncAPI
  predictor: {type: python, path: p.py, multi_model_reloading: {dir: "s3://b/m"}}
""",
    "0.35": """\
- name: a
  kind: RealtimeAPI
  handler:
    type: tensorflow
    path: p.py
    protobuf_path: p.proto
    python_path: lib
    config: {a: 1}
    env: {A: b}
    image: quay.io/cortexlabs/x
    tensorflow_serving_image: quay.io/cortexlabs/tensorflow-serving-cpu:0.35.0
    log_level: warning
    shm_size: 64Mi
    processes_per_replica: 1
    threads_per_process: 2
    models:
      paths: [{name: m, path: "s3://b/m", signature_key: predict}]
      signature_key: predict
      cache_size: 1
      disk_cache_size: 2
    server_side_batching: {max_batch_size: 2, batch_interval: 50ms}
    dependencies: {pip: r.txt, conda: c.txt, shell: s.sh}
  compute: {node_groups: [gpu]}
- name: b
  kind: RealtimeAPI
  handler: {type: tensorflow, path: p.py, models: {dir: "s3://b/m"}}
- name: c
  kind: RealtimeAPI
  handler: {type: tensorflow, path: p.py, models: {path: "s3://b/m"}}
- name: d
  kind: RealtimeAPI
  handler: {type: python, path: p.py, multi_model_reloading: {path: "s3://b/m"}}
- name: e
  kind: RealtimeAPI
  handler: {type: python, path: p.py, multi_model_reloading: {dir: "s3://b/m"}}
- name: f
  kind: RealtimeAPI
  handler:
    type: python
    path: p.py
    multi_model_reloading: {paths: [{name: m, path: "s3://b/m"}], cache_size: 1, disk_cache_size: 2}
- name: g
  kind: AsyncAPI
  handler: {type: python, path: p.py, processes_per_replica: 1, threads_per_process: 1}
  autoscaling: {max_replica_concurrency: 100, target_replica_concurrency: 2, window: 20s}
""",
}
"""By the release that they were written for; each is valid there, and is converted."""

REFUSED = {
    "a kind of the feature store": ("- kind: raw_column\n  name: a\n", 1, "training is not supported"),
    "a file of the feature store": (
        "- kind: app\n  name: x\n- kind: estimator\n  name: e\n  target_column: @label\n",
        1,
        "training is not supported",
    ),
    "a model that Cortex trained, by name": (
        "- kind: api\n  name: a\n  model_name: dnn\n",
        3,
        "model dnn was trained by Cortex",
    ),
    "a model that Cortex trained, by reference": (
        "- kind: api\n  name: a\n  model: @dnn\n  compute: {replicas: 1}\n",
        3,
        "model @dnn was trained by Cortex",
    ),
    "a template": (
        "- kind: template\n  name: t\n  yaml: |\n    - kind: api\n      name: {name}\n",
        1,
        "replace the template by the entries that it generates",
    ),
    "the use of a template": (
        "- kind: embed\n  template: t\n  args: {name: a}\n",
        1,
        "replace the template by the entries that it generates",
    ),
    "a batch job": (
        "- name: a\n  kind: BatchAPI\n  predictor: {type: python, path: p.py}\n",
        2,
        "run a Kubernetes Job",
    ),
    "a task": ("- name: a\n  kind: TaskAPI\n  definition: {path: t.py}\n", 2, "run a Kubernetes Job"),
    "a traffic splitter": (
        "- name: a\n  kind: TrafficSplitter\n  apis: [{name: b, weight: 100, shadow: false}]\n",
        2,
        "API b is not in the file, or is not converted",
    ),
    "containers": (
        "- name: a\n  kind: RealtimeAPI\n  pod: {containers: [{name: x, image: y}]}\n  autoscaling: {target_in_flight: 1}\n"
        "  node_groups: [a]\n",
        3,
        "apply a Deployment and a Service",
    ),
    "a pickled class": (
        "- name: a\n  kind: RealtimeAPI\n  predictor: {type: python, path: p.pickle}\n",
        3,
        "pickled classes are not supported",
    ),
    "a signature of a Python model": (
        "- name: a\n  kind: RealtimeAPI\n  predictor:\n    type: python\n    path: p.py\n"
        '    multi_model_reloading: {path: "s3://b/m", signature_key: x}\n',
        6,
        "signature_key is not supported for models of a Python handler",
    ),
    "a signature of one of several Python models": (
        "- name: a\n  kind: RealtimeAPI\n  handler:\n    type: python\n    path: p.py\n"
        '    multi_model_reloading: {paths: [{name: a, path: "s3://b/m", signature_key: x}], signature_key: y}\n',
        6,
        "signature",
    ),
    "a signature of one of the models of a predictor": (
        "- name: a\n  kind: RealtimeAPI\n  predictor:\n    type: python\n    path: p.py\n"
        '    multi_model_reloading: {paths: [{name: a, path: "s3://b/m", signature_key: x}]}\n',
        4,
        "signatureKey is only supported with type tensorflow",
    ),
    "no name": ("- kind: RealtimeAPI\n  predictor: {type: python, path: p.py}\n", 1, "name is required"),
    "an empty name": (
        "- {name: , kind: RealtimeAPI, predictor: {type: python, path: p.py}}\n",
        1,
        "name is required",
    ),
    "a name twice": (
        "- kind: api\n  name: a\n  model: s3://b/m.onnx\n- kind: api\n  name: a\n  model: s3://b/n.onnx\n",
        5,
        "name a is already used by the API in line 2",
    ),
    "a name of two kinds of API": (
        "- {name: a, kind: RealtimeAPI, handler: {type: python, path: p.py}}\n"
        "- {name: a, kind: AsyncAPI, handler: {type: python, path: p.py}}\n",
        2,
        "name a is already used by the API in line 1",
    ),
    "an endpoint twice": (
        "- {name: a, endpoint: x, predictor: {type: python, path: p.py}}\n"
        "- {name: b, endpoint: /x, predictor: {type: python, path: p.py}}\n",
        2,
        "networking.endpoint /x is already used by the API in line 1",
    ),
    "a field twice": (
        "- name: a\n  kind: RealtimeAPI\n  predictor:\n    type: python\n    path: p.py\n    path: q.py\n",
        6,
        "predictor.path: duplicate key",
    ),
}
"""Rejected files by description: the text, the reported line, and a part of the message."""
